#!/usr/bin/env bash
# DNSViz on a signed zone of ours: every RRset, proof and delegation of it, over UDP and TCP, with EDNS in all its variants, for clients
# of two regions. Nothing it finds may be an error or a warning. Root on Debian; takes what it needs from apt.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { echo "dnsviz: $*" >&2; exit 1; }
missing=()
for pair in dnsviz:dnsviz dig:bind9-dnsutils; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  [ "$(id -u)" = 0 ] || fail "these Debian packages are missing: ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null ||
    { apt-get update -q >/dev/null; DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null; }
fi

cargo build --locked -q
binary=$PWD/target/debug/isochrone work=$(mktemp -d) server=""
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"
for zone in example geo.example child.geo.example; do "$binary" key new $zone 2>/dev/null >/dev/null; done
# `example` is there to delegate to the zone that matters: nothing is above it, and DNSViz says so.
cat >isochrone.toml <<'TOML'
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = ""
[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
[regions.eu]
location = "aws:eu-west-1"
endpoints = ["198.51.100.1", "2001:db8::2"]
[zones."example"]
nameservers = ["ns1.geo.example."]
addresses = { "ns1.geo" = ["127.0.0.1"] }
dnssec-key = "example.key"
[zones."geo.example"]
nameservers = ["ns1.geo.example."]
addresses = { ns1 = ["127.0.0.1"] }
dnssec-key = "geo.example.key"
records = """
www      300 A 192.0.2.80
alias    300 CNAME www
toroute  300 CNAME x.app
*.wild   300 CNAME x.deep
*.deep   300 A 192.0.2.82
moved    300 DNAME wild
a.b.ent  300 A 192.0.2.81
@        300 MX 10 www
@        300 TXT "apex"
"""
[zones."geo.example".routes."*.app"]
[zones."geo.example".routes."@"]
[zones."geo.example".routes.near]
[zones."geo.example".routes.pool]
max-answers = 1
[zones."child.geo.example"]
nameservers = ["ns1.geo.example."]
dnssec-key = "child.geo.example.key"
records = "www 300 A 192.0.2.90"
[zones."plain.geo.example"]
nameservers = ["ns1.geo.example."]
records = "www 300 A 192.0.2.91"
TOML
"$binary" --log-format json serve --config isochrone.toml 2>log &
server=$!
deadline=$((SECONDS + 60))
until address=$(sed -n 's/.*"ready".*"listen":"\([^"]*\)".*/\1/p' log) && [ -n "$address" ]; do
  kill -0 "$server" 2>/dev/null || { cat log >&2; fail "the server ended"; }
  [ $SECONDS -lt $deadline ] || { cat log >&2; fail "the server is not ready after 60 s"; }
  sleep 0.1
done
dig "@${address%:*}" -p "${address##*:}" example DNSKEY +noall +answer >anchor

names=(geo.example www.geo.example nope.geo.example x.app.geo.example near.geo.example pool.geo.example alias.geo.example
  toroute.geo.example x.wild.geo.example x.moved.geo.example b.ent.geo.example child.geo.example www.child.geo.example
  nope.child.geo.example plain.geo.example www.plain.geo.example)
servers=()
for zone in . example geo.example child.geo.example plain.geo.example; do servers+=(-x "$zone:ns1.geo.example=$address"); done
for client in "" 3.80.0.0/24 18.184.0.0/24; do
  timeout 300 dnsviz probe -A -E -a example "${servers[@]}" ${client:+-e "$client"} -o probe.json "${names[@]}" >probe.log 2>&1 ||
    { cat probe.log >&2; fail "the probe failed"; }
  dnsviz print -t anchor -r probe.json >all.txt 2>print.log || { cat print.log >&2; fail "no judgement"; }
  # The block of `example` itself aside: names stand at the begin of a line, what belongs to them is indented.
  awk '/^[^ ]/ { below = $1 != "example" } below' all.txt >print.txt
  for name in "${names[@]}"; do grep -q "^$name " print.txt || grep -q "^$name\$" print.txt || fail "nothing is said of $name"; done
  # Errors, warnings, and what is bogus [!] or unknown [?].
  ! grep -nE '^ *[EW]:|\[[^] ]*[!?]' print.txt || { cat print.txt >&2; fail "client ${client:-none}: see above"; }
  secure=$(grep -c '\[\.\]' print.txt)
  [ "$secure" -gt 80 ] || { cat print.txt >&2; fail "only $secure secure records: it did not look"; }
  echo "dnsviz: client ${client:-none}: $secure secure, no error, no warning"
done
