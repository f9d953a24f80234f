#!/usr/bin/env bash
# Asks our server and five others the questions of the conformance battery that may lie beside the clone, in one run, and writes the
# table of docs/conformance.md. Root, for apt-get; about 12 minutes. ISOCHRONE names the program (target/release/isochrone, built if it
# is missing); MMDB a location database for gdnsd, which answers no geographic question without one; SLOW the seconds of each slow check (45).
set -euo pipefail
cd "$(dirname "$0")/../.."

battery=${BATTERY:-../shared/conformance}
[ -f "$battery/check.py" ] || { echo "no conformance battery at $battery" >&2; exit 1; }
battery=$(realpath "$battery")
PATH="$PATH:$HOME/.cargo/bin"
isochrone=${ISOCHRONE:-target/release/isochrone}
[ -x "$isochrone" ] || cargo build --release --locked
slow=${SLOW:-45}

# --- Tools ------------------------------------------------------------------------------------------------------------------

packages=()
for pair in nsd:nsd knotd:knot gdnsd:gdnsd named:bind9 pdns_server:pdns-server dig:bind9-dnsutils openssl:openssl; do
  command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
done
dpkg -s knot-module-geoip >/dev/null 2>&1 || packages+=(knot-module-geoip)
dpkg -s pdns-backend-bind >/dev/null 2>&1 || packages+=(pdns-backend-bind)
if [ ${#packages[@]} -gt 0 ]; then
  # No daemon of theirs is to start by itself.
  policy=/usr/sbin/policy-rc.d made=false
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; made=true; }
  apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}" >/dev/null
  ! $made || rm -f $policy
fi
venv=target/conformance-venv
[ -x $venv/bin/pip ] || /usr/bin/python3 -m venv $venv
$venv/bin/python -c 'import dns, cryptography, httpx, h2' 2>/dev/null || $venv/bin/pip install -q dnspython cryptography 'httpx[http2]'

# --- Servers ----------------------------------------------------------------------------------------------------------------

work=$(mktemp -d)
export DIR="$work/peers"
mkdir -p "$DIR" "$work/results"
our_pid=""
stop_all() {
  [ -z "$our_pid" ] || kill "$our_pid" 2>/dev/null || true
  bash "$battery/refs.sh" stop >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap stop_all EXIT

# Starts our server with a configuration of tests/conformance/ on a free port; sets `port` and `our_pid`.
start_ours() {
  mkdir -p "$work/ours"
  port=$($venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  tests/conformance/prepare.sh "$isochrone" "$battery" "$work/ours" "$port"
  "$isochrone" serve --config "$work/ours/$1" 2>"$work/log" &
  our_pid=$!
  local deadline=$((SECONDS + 30))
  until dig @127.0.0.1 -p "$port" +time=1 +tries=1 +short example.com SOA 2>/dev/null | grep -q .; do
    kill -0 $our_pid 2>/dev/null && [ $SECONDS -lt $deadline ] || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
  done
}

# ask NAME PORT OPTION...: the battery's result goes to results/NAME.json.
ask() {
  local name=$1 port=$2
  shift 2
  echo "asking $name"
  $venv/bin/python -W ignore "$battery/check.py" 127.0.0.1 "$port" --json "$work/results/$name.json" "$@" >"$work/$name.out" 2>&1 || true
  [ -s "$work/results/$name.json" ] || { cat "$work/$name.out" >&2; exit 1; }
  tail -n 1 "$work/$name.out"
}

# ours NAME CONFIGURATION OPTION...: a row of ours.
ours() {
  local name=$1 config=$2
  shift 2
  start_ours "$config"
  local dot doh
  dot=$(sed -n 's/.* dot="[^"]*:\([0-9]*\)".*/\1/p' "$work/log")
  doh=$(sed -n 's/.* doh="\([^"]*\)".*/\1/p' "$work/log")
  ask "$name" "$port" ${dot:+--dot-port "$dot" --doh-url "https://$doh/dns-query"} "$@"
  kill -TERM "$our_pid"
  wait "$our_pid" || true
  our_pid=""
}
ours isochrone full.toml --geo-name geo --require ecs,cookies,nsid,geo --dnssec --slow "$slow"
ours isochrone-rrl rrl.toml --only load.rrl --rrl

bash "$battery/refs.sh" start nsd knot gdnsd bind pdns
for port in 6301 6302 6303 6304 6305; do
  deadline=$((SECONDS + 30))
  until dig @127.0.0.1 -p $port +time=1 +tries=1 +short example.com SOA 2>/dev/null | grep -q .; do
    [ $SECONDS -lt $deadline ] || { echo "nobody answers on port $port" >&2; exit 1; }
    sleep 0.2
  done
done
ask nsd 6301 --slow "$slow"
ask knot 6302 --slow "$slow"
geo=()
[ ! -f "${MMDB:-}" ] || geo=(--geo-name geo)
ask gdnsd 6303 "${geo[@]}" --slow "$slow"
ask bind 6304 --dot-port 6324 --doh-url https://127.0.0.1:6334/dns-query --slow "$slow"
ask pdns 6305 --slow "$slow"

# --- Table ------------------------------------------------------------------------------------------------------------------

version() { dpkg-query -W -f '${Version}' "$1" | sed 's/^[0-9]*://; s/[-+~].*//'; }
versions="nsd=NSD $(version nsd);knot=Knot $(version knot);gdnsd=gdnsd $(version gdnsd);bind=BIND $(version bind9);pdns=PowerDNS $(version pdns-server)"
$venv/bin/python - "$work/results" "$versions" docs/conformance.md <<'PY'
import json, os, sys
folder, versions, path = sys.argv[1:]
names = {"isochrone": "isochrone", "isochrone-rrl": "isochrone, `--only load.rrl --rrl`"}
names |= dict(pair.split("=", 1) for pair in versions.split(";"))
rows = ["| server | MUST passed | SHOULD passed | SEC passed | failed | skipped | what fails |", "|---|---|---|---|---|---|---|"]
for name, shown in names.items():
    file = os.path.join(folder, name + ".json")
    if not os.path.exists(file):
        continue
    results = json.load(open(file))
    passed = lambda level: sum(r["level"] == level and r["status"] == "PASS" for r in results)
    failed = [r["id"] for r in results if r["status"] == "FAIL"]
    skipped = sum(r["status"] == "SKIP" for r in results)
    more = f" and {len(failed) - 8} more" if len(failed) > 8 else ""
    what = ", ".join(f"`{check}`" for check in failed[:8]) + more or "nothing"
    rows.append(f"| {shown} | {passed('MUST')} | {passed('SHOULD')} | {passed('SEC')} | {len(failed)} | {skipped} | {what} |")
begin, end = "<!-- table: tests/long/conformance.sh -->\n", "<!-- end of table -->"
text = open(path).read()
before, rest = text.split(begin)
open(path, "w").write(before + begin + "\n" + "\n".join(rows) + "\n\n" + end + rest.split(end, 1)[1])
print("\n".join(rows))
PY
