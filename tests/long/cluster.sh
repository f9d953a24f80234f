#!/usr/bin/env bash
# The cluster at full length: five servers and three NATS servers in network namespaces, whose delays contradict geography and swap; and
# everything that can be killed, cut, hung or flooded while clients ask. Ten minutes. Needs root and what tests/run installs.
set -euo pipefail
cd "$(dirname "$0")/../.."

for pair in ip:iproute2 nft:nftables unbound:unbound nats-server:nats-server faketime:faketime; do
  command -v "${pair%%:*}" >/dev/null || { echo "cluster: Debian package ${pair##*:} is missing" >&2; exit 1; }
done

cargo test --locked -q --test cluster -- --ignored --nocapture --test-threads 1
