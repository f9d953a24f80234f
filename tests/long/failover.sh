#!/usr/bin/env bash
# Every fault of the failover tests with the default times, gdnsd beside isochrone on the same links, every period of flapping from 1 s
# to 60 s, and an hour of 30 % loss. What was seen is kept in target/failover/long, for docs/failover_timeline.py. Needs root and what
# tests/run installs. FAILOVER_HOUR=no leaves out the hour; then it takes nineteen minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."

for pair in ip:iproute2 nft:nftables nginx:nginx-light gdnsd:gdnsd; do
  command -v "${pair%%:*}" >/dev/null || { echo "failover: Debian package ${pair##*:} is missing" >&2; exit 1; }
done

hour=(--hour)
[ "${FAILOVER_HOUR:-yes}" = yes ] || hour=()
cargo test --locked -q --test failover -- --long "${hour[@]}" --record target/failover/long
