#!/usr/bin/env bash
# Ten upgrades in a row under load: how many queries are lost, beside the same time without upgrades. The load is dnsperf (Debian's
# package of that name) at half of what it reaches when it asks as fast as it can. Ends with status 1 when upgrades lost more, three times in a
# row: now and then the asker itself misses an answer.
#
#   tests/long/upgrades.sh [BINARY [SECONDS]]
set -Eeuo pipefail
cd "$(dirname "$0")/../.."
binary=$(realpath "${1:-target/release/isochrone}")
seconds=${2:-30}
upgrades=10
folder=$(mktemp -d)
server=
clean() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$folder"
}
trap clean EXIT
cd "$folder"

cat >isochrone.toml <<TOML
[server]
listen = ["127.0.0.1:0"]
state-dir = "state"
[admin]
listen = "127.0.0.1:0"
[regions.us]
location = "aws:us-east-1"
endpoints = ["192.0.2.1"]
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["192.0.2.2"]
[regions.ap]
location = "aws:ap-southeast-1"
endpoints = ["192.0.2.3"]
[zones."geo.example"]
nameservers = ["ns1.example.net."]
[zones."geo.example".routes."*.app"]
TOML
for n in $(seq 1000); do echo "www$n.app.geo.example A"; done >queries

# Starts a server, and returns when it answers; the process before it has ended then, too.
start() {
  local before=$server
  "$binary" serve --config isochrone.toml "$@" 2>log &
  server=$!
  until grep -q ' ready ' log; do
    kill -0 "$server" 2>/dev/null || { cat log >&2; exit 1; }
    sleep 0.05
  done
  [ -z "$before" ] || wait "$before"
}

load() { dnsperf -s 127.0.0.1 -p "$port" -d queries -c 8 -T 1 "$@" 2>&1; }
figure() { sed -n "s/^ *$1: *//p" "$2"; }
report() {
  echo "$1: $(figure 'Queries sent' "$2") queries, lost $(figure 'Queries lost' "$2"), $(figure 'Response codes' "$2"), seconds" \
    "$(figure 'Average Latency (s)' "$2" | tr -s ' ')"
}
lost() { figure 'Queries lost' "$1" | cut -d' ' -f1; }

start
port=$(sed -n 's/.* listen="127.0.0.1:\([0-9]*\)".*/\1/p' log)
load -l 5 >full
rate=$(figure 'Queries per second' full | cut -d. -f1)
echo "as fast as it can: $rate queries a second; half of it from now on"
for round in 1 2 3; do
  load -l "$seconds" -Q $((rate / 2)) >without
  report "without upgrades" without
  load -l "$seconds" -Q $((rate / 2)) >with &
  asker=$!
  for n in $(seq $upgrades); do
    sleep "$(awk "BEGIN { print $seconds / ($upgrades + 2) * 0.6 }")"
    start --takeover
  done
  kill -0 $asker 2>/dev/null || { echo "the load ended before the upgrades did: give more seconds" >&2; exit 1; }
  wait $asker
  report "with $upgrades upgrades" with
  [ "$(lost with)" -gt "$(lost without)" ] || exit 0
done
exit 1
