#!/usr/bin/env bash
# The dashboard in a real browser: every feature clicked, axe-core, screenshots in target/dashboard. Needs node 20 or newer with npm, and
# Debian's chromium.
set -Eeuo pipefail
binary=$(realpath "${1:-$(dirname "$0")/../../target/release/isochrone}")
cd "$(dirname "$0")/browser"
command -v node >/dev/null || { echo "no node: install Node.js 20 or newer with npm" >&2; exit 1; }
work=../../../target/browser
mkdir -p $work ../../../target/dashboard
cp package.json test.mjs $work
(cd $work && npm install --silent --no-audit --no-fund)
shots=$(realpath ../../../target/dashboard)
cd $work && node test.mjs "$binary" "$shots"
