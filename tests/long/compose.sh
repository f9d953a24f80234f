#!/usr/bin/env bash
# What docs/compose/compose.yaml starts, without containers, since no registry may be in reach: each service in a network namespace with its
# address and its name, isochrone and Prometheus on the files that are mounted there. Debian's NATS and Prometheus; python for nginx; no Grafana.
#
#   tests/long/compose.sh [ISOCHRONE]
set -Eeuo pipefail
script=$(realpath "$0")
cd "$(dirname "$0")/../.."

fail() { echo "compose: $*" >&2; exit 1; }

if [ "${1:-}" != --inside ]; then
  binary=$(realpath "${1:-target/release/isochrone}")
  [ "$(id -u)" = 0 ] || fail "needs root"
  missing=()
  for pair in nats-server:nats-server promtool:prometheus dig:bind9-dnsutils ip:iproute2 unshare:util-linux curl:curl python3:python3; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  [ ${#missing[@]} = 0 ] || fail "these Debian packages are missing: ${missing[*]}"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  unshare --net --mount "$script" --inside "$binary" "$work"
  exit
fi

binary=$2 work=$3 compose=docs/compose/compose.yaml
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
ip link set lo up
ip link add inside type bridge
ip address add 172.28.53.254/24 dev inside
ip link set inside up

# The address that compose.yaml gives a service.
address_of() { sed -n "/^  $1:/,/^\$/s/.*ipv4_address: \([0-9.]*\).*/\1/p" $compose; }

echo "127.0.0.1 localhost" >"$work/hosts"
free=128
for service in ns1 ns2 nats app-us app-eu prometheus; do
  address=$(address_of $service)
  [ -n "$address" ] || address=172.28.53.$((free++))
  echo "$address $service" >>"$work/hosts"
  ip netns add $service
  ip link add "v-$service" type veth peer name eth0 netns $service
  ip link set "v-$service" master inside up
  ip -n $service link set lo up
  ip -n $service link set eth0 up
  ip -n $service address add "$address/24" dev eth0
done
mount --bind "$work/hosts" /etc/hosts

in_ns() { local service=$1; shift; exec ip netns exec "$service" unshare --uts sh -c "hostname $service; exec \"\$@\"" - "$@"; }
mkdir "$work/site" "$work/prometheus"
cp docs/compose/prometheus.yml docs/prometheus/alerts.yml "$work/prometheus/"
promtool check config "$work/prometheus/prometheus.yml" >"$work/promtool.log" || { cat "$work/promtool.log" >&2; fail "promtool refuses prometheus.yml"; }
in_ns nats nats-server >"$work/nats.log" 2>&1 &
in_ns app-us python3 -m http.server -d "$work/site" 80 >/dev/null 2>&1 &
in_ns app-eu python3 -m http.server -d "$work/site" 80 >/dev/null 2>&1 &
eu=$!
for server in ns1 ns2; do in_ns $server "$binary" serve --config docs/compose/isochrone.toml 2>"$work/$server.log" & done
in_ns prometheus prometheus --config.file="$work/prometheus/prometheus.yml" --storage.tsdb.path="$work/data" >"$work/prometheus.log" 2>&1 &

# Waits until a command prints what is expected.
until_is() {
  local what=$1 expected=$2 got deadline=$((SECONDS + 60))
  shift 2
  until got=$("$@" 2>/dev/null) && [ "$got" = "$expected" ]; do
    [ $SECONDS -lt $deadline ] || { tail -n 5 "$work"/*.log >&2; fail "$what: ${got:-nothing}, expected $expected"; }
    sleep 0.3
  done
}
ask() { dig "@$1" +time=1 +tries=1 +short www.app.geo.example.com A +subnet=18.184.0.0/24; }
query() { curl -s "http://prometheus:9090/api/v1/query" --data-urlencode "query=$1" | python3 -c 'import json,sys; print(json.load(sys.stdin)["data"]["result"][0]["value"][1])'; }

for server in $(address_of ns1) $(address_of ns2); do until_is "$server" "$(address_of app-eu)" ask "$server"; done
until_is "servers that hear each other" "ns1, 2 of 2 servers count" sh -c "'$binary' status --admin http://ns1:8053 | sed -n 's/^cluster *\(ns1, 2 of 2 servers count\).*/\1/p'"
until_is "servers that Prometheus scrapes" 2 query 'count(isochrone_region_usable{region="eu"} == 1)'
kill $eu
for server in $(address_of ns1) $(address_of ns2); do until_is "$server after the failure" "$(address_of app-us)" ask "$server"; done
until_is "what Prometheus sees of it" 2 query 'count(isochrone_region_usable{region="eu"} == 0)'
echo "compose: two servers, NATS, Prometheus: answers, failover and metrics are as docs/container.md says"
