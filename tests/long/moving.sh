#!/usr/bin/env bash
# The guides in docs/moving: gdnsd and PowerDNS on their configurations there, isochrone on what they were converted to, all files as they
# are; the same questions must get the same answers, while everything is up and after a region has failed. Each server runs in a network
# and mount namespace of its own, in which all the addresses of the examples exist. Root on Debian; takes what it needs from apt.
#
#   tests/long/moving.sh [ISOCHRONE]
set -Eeuo pipefail
script=$(realpath "$0")
cd "$(dirname "$0")/../.."

fail() { echo "moving: $*" >&2; exit 1; }

# --- Inside a namespace: SERVER GUIDE ISOCHRONE WORK ---------------------------------------------------------------------------

# All addresses that the examples' endpoints and servers have.
ADDRESSES="192.0.2.10 192.0.2.11 192.0.2.30 192.0.2.40 192.0.2.50 192.0.2.51 192.0.2.52 192.0.2.53 192.0.2.60 198.51.100.10 198.51.100.30
  198.51.100.40 198.51.100.41 203.0.113.10 203.0.113.20 2001:db8:1::53 2001:db8:2::10"
# Endpoints that fail in the second round.
FAILING="198.51.100.10 2001:db8:2::10 198.51.100.40 198.51.100.41 192.0.2.30"

# The questions of a file of answers, asked again: `name type client: addresses` in each line.
ask() {
  local name qtype client
  while read -r name qtype client _; do
    echo "$name $qtype $client" "$(dig @192.0.2.53 +time=2 +tries=2 +short "$name" "$qtype" "+subnet=${client%:}" | sort | xargs)"
  done <"$1"
}

# Asks until the answers are those of a file, or for two minutes: checks take their time.
settle() {
  local deadline=$((SECONDS + 120))
  until ask "$1" >"$2" && cmp -s "$1" "$2"; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 1
  done
}

inside() {
  local server=$1 guide=$2 binary=$3 work=$4
  local files=$PWD/docs/moving/$guide answers=tests/long/moving/$guide
  mount --make-rprivate /
  ip link set lo up
  local address
  for address in $ADDRESSES; do ip address add "$address" dev lo nodad 2>/dev/null || ip address add "$address" dev lo; done
  python3 tests/long/moving/endpoints.py &
  trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
  local deadline=$((SECONDS + 60))
  until (exec 3<>/dev/tcp/192.0.2.10/80 4<>/dev/tcp/192.0.2.10/5432) 2>/dev/null; do
    [ $SECONDS -lt $deadline ] || fail "the endpoints do not answer"
    sleep 0.1
  done
  mount -t tmpfs tmpfs /run
  mount -t tmpfs tmpfs /var/lib
  mkdir -p /var/lib/GeoIP /run/gdnsd /var/lib/gdnsd /run/pdns
  cp "$work/GeoLite2-City.mmdb" /var/lib/GeoIP/
  case $server in
    isochrone)
      # As the guide says: the database that the other server has used.
      rm -rf "$work/isochrone.d" && cp -r "$files" "$work/isochrone.d"
      sed -i 's/^# database/database/' "$work/isochrone.d/isochrone.toml"
      "$binary" serve --config "$work/isochrone.d/isochrone.toml" 2>"$work/isochrone.log" &
      ;;
    gdnsd)
      mount -t tmpfs tmpfs /etc/gdnsd
      cp -r "$files"/. /etc/gdnsd/
      mkdir -p /etc/gdnsd/geoip
      cp "$work/GeoLite2-City.mmdb" /etc/gdnsd/geoip/
      gdnsd checkconf >"$work/gdnsd.log" 2>&1
      gdnsd start >>"$work/gdnsd.log" 2>&1 &
      ;;
    pdns)
      mount --bind "$files" /etc/powerdns
      pdns_server --config-dir=/etc/powerdns --socket-dir=/run/pdns --security-poll-suffix= >"$work/pdns.log" 2>&1 &
      ;;
  esac
  deadline=$((SECONDS + 60))
  until [ -n "$(dig @192.0.2.53 +time=1 +tries=1 +short "$(cut -d' ' -f1 "$answers.up" | head -n 1)" A)" ]; do
    [ $SECONDS -lt $deadline ] || { cat "$work/$server.log" >&2; fail "$server does not answer"; }
    sleep 0.2
  done
  local round
  for round in up failed; do
    if [ $round = failed ]; then
      for address in $FAILING; do ip address del "$address" dev lo 2>/dev/null || ip address del "$address/128" dev lo; done
    fi
    settle "$answers.$round" "$work/$server.$round" || {
      diff "$answers.$round" "$work/$server.$round" >&2 || true
      tail -n 5 "$work/$server.log" >&2
      fail "$guide: $server answers otherwise ($round)"
    }
  done
  echo "moving: $guide: $server gives all $(cat "$answers".* | wc -l) answers"
}

if [ "${1:-}" = --inside ]; then
  shift
  inside "$@"
  exit
fi

# --- Outside ----------------------------------------------------------------------------------------------------------------------

binary=$(realpath "${1:-target/release/isochrone}")
[ "$(id -u)" = 0 ] || fail "needs root"
missing=()
for pair in gdnsd:gdnsd pdns_server:pdns-server /usr/share/doc/pdns-backend-geoip:pdns-backend-geoip dig:bind9-dnsutils ip:iproute2 \
  unshare:util-linux python3:python3; do
  [ -e "${pair%%:*}" ] || command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  # No daemon of theirs is to start.
  policy=/usr/sbin/policy-rc.d made=false
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; made=true; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null ||
    { apt-get update -q >/dev/null; apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null; }
  ! $made || rm -f "$policy"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tests/long/moving/city_database.py "$work/GeoLite2-City.mmdb"
for pair in gdnsd:gdnsd isochrone:gdnsd pdns:powerdns isochrone:powerdns; do
  unshare --net --mount "$script" --inside "${pair%%:*}" "${pair##*:}" "$binary" "$work"
done
