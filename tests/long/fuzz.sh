#!/usr/bin/env bash
# Fuzzes every target for FUZZ_SECONDS (60). New finds lie in fuzz/artifacts/<target>/; mend the cause, then keep the input as a seed
# in fuzz/corpus/<target>/. What the fuzzer learns on the way is not kept.
set -euo pipefail
cd "$(dirname "$0")/../.."

PATH="$PATH:$HOME/.cargo/bin"
command -v c++ >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends g++ >/dev/null
cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
export RUSTC_BOOTSTRAP=1 # sanitizers are not yet an option of a stable compiler
learnt=$(mktemp -d)
trap 'rm -rf "$learnt"' EXIT
for target in $(cargo fuzz list); do
  echo "fuzz: $target"
  mkdir -p "$learnt/$target"
  limits=(-max_total_time="${FUZZ_SECONDS:-60}" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1)
  [ "$target" = mmdb ] || limits+=(-max_len=4096)
  cargo fuzz run "$target" "$learnt/$target" "fuzz/corpus/$target" -- "${limits[@]}" 2>"$learnt/log" ||
    { tail -n 60 "$learnt/log" >&2; exit 1; }
  grep -E 'number_of_executed_units|new_units_added' "$learnt/log"
done
