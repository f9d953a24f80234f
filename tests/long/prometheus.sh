#!/usr/bin/env bash
# The alert rules by promtool, and every query of the Grafana dashboard asked of a real Prometheus that scrapes a real server. Needs
# Debian's prometheus and bind9-dnsutils.
set -Eeuo pipefail
cd "$(dirname "$0")/../.."
binary=$(realpath "${1:-target/release/isochrone}")
(cd docs/prometheus && promtool check rules alerts.yml && promtool test rules alerts_test.yml && promtool check config prometheus.yml)
work=$(mktemp -d) server="" prometheus="" web=""
end() {
  [ -z "$web" ] || kill "$web" 2>/dev/null || true
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  [ -z "$prometheus" ] || kill "$prometheus" 2>/dev/null || true
  wait
  rm -rf "$work"
}
trap end EXIT
python3 - "$work" "$binary" <<'PY' &
import http.server, sys, pathlib
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
pathlib.Path(sys.argv[1], "port").write_text(str(web.server_address[1]))
web.serve_forever()
PY
web=$!
until [ -s "$work/port" ]; do sleep 0.1; done
cat >"$work/isochrone.toml" <<TOML
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[query-log]
file = "queries.log"
[checks.web]
type = "http"
port = $(cat "$work/port")
interval = "1s"
[regions.us]
location = "aws:us-east-1"
endpoints = ["127.0.0.1"]
check = "web"
[regions.eu]
location = "aws:eu-central-1"
endpoints = ["192.0.2.2"]
[zones."geo.example"]
nameservers = ["ns1.example.net."]
[zones."geo.example".routes."*.app"]
TOML
"$binary" --log-format json serve --config "$work/isochrone.toml" 2>"$work/log" &
server=$!
deadline=$((SECONDS + 30))
until grep -q '"message":"ready"' "$work/log"; do [ $SECONDS -lt $deadline ] || { cat "$work/log" >&2; exit 1; }; sleep 0.1; done
dns=$(sed -n 's/.*"message":"ready","listen":"127.0.0.1:\([0-9]*\)".*/\1/p' "$work/log")
admin=$(sed -n 's/.*"admin":"\([^"]*\)".*/\1/p' "$work/log" | head -n 1)
sed -e "s/127.0.0.1:8053/$admin/; s/15s/1s/; /rule_files/d" docs/prometheus/prometheus.yml >"$work/prometheus.yml"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --web.listen-address="127.0.0.1:$port" >"$work/prom.log" 2>&1 &
prometheus=$!
python3 - "$port" "$dns" docs/prometheus/grafana.json <<'PY'
import json, subprocess, sys, time, urllib.parse, urllib.request
port, dns, board = sys.argv[1:]
# These have nothing to say of a healthy server that learns nothing.
MAY_BE_EMPTY = ('reason!="best"', "isochrone_dropped_total", "latency_samples")
def ask(query):
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    return json.load(urllib.request.urlopen(url, timeout=5))["data"]["result"]
queries = [target["expr"] for panel in json.load(open(board))["panels"] for target in panel["targets"]]
queries = [query.replace("$__rate_interval", "10s").replace("$instance", ".*") for query in queries]
deadline = time.time() + 60
while True:
    for subnet in ("81.2.69.0/24", "8.8.8.0/24"):
        subprocess.run(["dig", "@127.0.0.1", "-p", dns, "www.app.geo.example", f"+subnet={subnet}", "+short"], check=True, stdout=subprocess.DEVNULL)
    try:
        empty = [query for query in queries if not ask(query) and not any(part in query for part in MAY_BE_EMPTY)]
    except OSError as error:
        empty = [f"Prometheus is not there yet: {error}"]
    if not empty:
        break
    if time.time() > deadline:
        sys.exit("no data for:\n" + "\n".join(empty))
    time.sleep(0.5)
print(f"Grafana dashboard: {len(queries)} queries understood by Prometheus, none without the data that it must have")
PY
