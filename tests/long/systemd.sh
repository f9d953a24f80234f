#!/usr/bin/env bash
# Runs docs/isochrone.service under a real systemd, booted in a container: started by its readiness, reloaded, refused, watched, killed
# when it hangs, stopped. Root on Debian; takes what it needs from apt. The binary is the release build, or the one in ISOCHRONE_BINARY.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { echo "systemd: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "needs root"
binary=${ISOCHRONE_BINARY:-target/release/isochrone}
[ -x "$binary" ] || fail "no $binary: cargo build --release"
missing=()
for tool in buildah podman runc; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if [ ${#missing[@]} -gt 0 ]; then
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null ||
    { apt-get update -q >/dev/null; DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null; }
fi

base=docker.io/library/debian:bookworm-slim image=localhost/isochrone-systemd:$$ name=isochrone-systemd-$$
buildah=(buildah --storage-driver vfs)
podman=(podman --runtime "$(command -v runc)" --cgroup-manager cgroupfs --storage-driver vfs)
work=$(mktemp -d)
trap '"${podman[@]}" rm -f -t 1 "$name" >/dev/null 2>&1; "${buildah[@]}" rmi "$image" >/dev/null 2>&1; rm -rf "$work"' EXIT
"${buildah[@]}" inspect --type image "$base" >/dev/null 2>&1 || "${buildah[@]}" pull "$base" >/dev/null 2>&1 ||
  fail "the base image $base is neither here nor in reach (tests/long/container.sh can make it)"

cp "$binary" "$work/isochrone"
cp docs/isochrone.service docs/isochrone-takeover.conf "$work/"
grep -v '\[::\]' docs/isochrone.socket >"$work/isochrone.socket" # the container has no IPv6
cat >"$work/isochrone.toml" <<'TOML'
[server]
listen = ["0.0.0.0:53"]
state-dir = "/var/lib/isochrone"
[regions.a]
location = "FRA"
endpoints = ["192.0.2.1"]
[zones."geo.example"]
nameservers = ["ns1.example.net."]
[zones."geo.example".routes.app]
TOML
cat >"$work/Dockerfile" <<DOCKERFILE
FROM $base
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends systemd procps bind9-dnsutils
COPY isochrone /usr/local/bin/isochrone
COPY isochrone.toml /etc/isochrone/isochrone.toml
COPY isochrone.service /etc/systemd/system/isochrone.service
COPY isochrone.socket isochrone-takeover.conf /root/
CMD ["/lib/systemd/systemd"]
DOCKERFILE
echo "systemd: building"
"${buildah[@]}" bud --format docker --isolation chroot --network host --pull-never -q -t "$image" "$work" >/dev/null 2>"$work/log" ||
  { tail -5 "$work/log" >&2; fail "the image cannot be built"; }

# With version 1 of control groups systemd needs its own hierarchy writable.
groups=()
[ ! -d /sys/fs/cgroup/systemd ] || groups=(-v /sys/fs/cgroup/systemd:/sys/fs/cgroup/systemd)
"${podman[@]}" run -d --name "$name" --systemd=always --privileged --network none --tmpfs /run --tmpfs /tmp "${groups[@]}" \
  --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "$image" >/dev/null
inside() { "${podman[@]}" exec "$name" "$@"; }
show() { inside systemctl show --value -p "$1" isochrone; }
# Polls until the property $1 of the unit matches $2, for at most $3 seconds.
until_shown() {
  local deadline=$((SECONDS + $3)) shown
  until shown=$(show "$1" 2>/dev/null) && [[ $shown =~ $2 ]]; do
    [ $SECONDS -lt $deadline ] || { inside journalctl -u isochrone --no-pager | tail -20 >&2; fail "$1 is ${shown:-nothing}, not $2"; }
    sleep 0.2
  done
}
answers() { [ "$(inside dig @127.0.0.1 +short +tries=2 +time=3 app.geo.example A)" = "$1" ] || fail "it does not answer $1"; }

until_shown LoadState '^loaded$' 60
inside systemctl start isochrone || { inside journalctl -u isochrone --no-pager | tail -20 >&2; fail "the unit does not start"; }
answers 192.0.2.1 # at once: it was ready when the start was done
until_shown StatusText '^answering: 1 region, 1 zone, 1 route$' 10
pid=$(show MainPID)
inside sh -c "cat /proc/$pid/task/*/status" | awk '
  /^CapEff:/ && $2 != "0000000000000000" || /^NoNewPrivs:/ && $2 != 1 || /^Seccomp:/ && $2 != 2 || /^Uid:/ && $2 == 0 { print; bad = 1 }
  END { exit bad }' || fail "a thread holds what it should not"
echo "systemd: started, confined; $(inside systemd-analyze security isochrone.service | tail -1 | tr -dc '[:print:]')"

inside sed -i s/192.0.2.1/192.0.2.2/ /etc/isochrone/isochrone.toml
inside systemctl reload isochrone
deadline=$((SECONDS + 20))
until [ "$(inside dig @127.0.0.1 +short app.geo.example A)" = 192.0.2.2 ]; do
  [ $SECONDS -lt $deadline ] || fail "the reload is not taken up"
  sleep 0.2
done
inside sh -c 'echo broken >>/etc/isochrone/isochrone.toml'
inside systemctl reload isochrone
until_shown StatusText 'the newest reload was refused$' 20
answers 192.0.2.2
inside sed -i /^broken/d /etc/isochrone/isochrone.toml
inside systemctl reload isochrone
until_shown StatusText '^answering: 1 region, 1 zone, 1 route$' 20
[ "$(show ActiveState) $(show NRestarts)" = "active 0" ] || fail "it did not stay up"
echo "systemd: reloaded, and a broken configuration refused"

began=$(show WatchdogTimestampMonotonic)
deadline=$((SECONDS + 40))
until [ "$(show WatchdogTimestampMonotonic)" != "$began" ]; do
  [ $SECONDS -lt $deadline ] || fail "it gives no sign of life"
  sleep 1
done
inside kill -STOP "$pid" # hangs
until_shown NRestarts '^1$' 90
until_shown ActiveState '^active$' 60
answers 192.0.2.2
inside journalctl -u isochrone --no-pager | grep -q 'Watchdog timeout' || fail "it was not the watchdog that ended it"
echo "systemd: a server that hangs is started again"

inside mkdir -p /etc/systemd/system/isochrone.service.d
inside cp /root/isochrone-takeover.conf /etc/systemd/system/isochrone.service.d/takeover.conf
inside systemctl daemon-reload
for upgrade in 1 2; do
  pid=$(show MainPID)
  inside systemctl reload isochrone || { inside journalctl -u isochrone --no-pager | tail -20 >&2; fail "no upgrade by reload"; }
  answers 192.0.2.2
  until_shown MainPID "^[0-9]+$" 10
  [ "$(show MainPID)" != "$pid" ] || fail "the main process is still the old one"
done
pid=$(show MainPID) began=$(show WatchdogTimestampMonotonic)
inside sh -c 'echo broken >>/etc/isochrone/isochrone.toml'
! inside systemctl reload isochrone 2>/dev/null || fail "an upgrade to a broken configuration is called a success"
inside sed -i /^broken/d /etc/isochrone/isochrone.toml
answers 192.0.2.2
deadline=$((SECONDS + 40))
until [ "$(show WatchdogTimestampMonotonic)" != "$began" ]; do
  [ $SECONDS -lt $deadline ] || fail "the new process gives no sign of life"
  sleep 1
done
[ "$(show ActiveState) $(show MainPID) $(show NRestarts)" = "active $pid 1" ] || fail "it did not stay up after the upgrades"
echo "systemd: upgraded by reload, twice, and not to a broken configuration"

inside systemctl stop isochrone
inside cp /root/isochrone.socket /etc/systemd/system/
inside systemctl daemon-reload
inside systemctl start isochrone.socket
inside systemctl start isochrone
answers 192.0.2.2
inside journalctl -u isochrone --no-pager -n 20 | grep -q 'sockets that the service manager has opened: 2' || fail "it does not use the sockets of systemd"
inside systemctl stop isochrone
# Asked while nobody reads: the question waits in the socket.
[ "$(inside dig @127.0.0.1 +short +tries=1 +time=60 app.geo.example A)" = 192.0.2.2 ] || fail "what waited was not answered"
inside systemctl restart isochrone
answers 192.0.2.2
inside systemctl stop isochrone.socket
echo "systemd: sockets opened by it, and kept while the server is down"

inside systemctl stop isochrone
[ "$(show Result) $(show ExecMainStatus)" = "success 0" ] || fail "it did not end in peace: $(show Result) $(show ExecMainStatus)"
echo "systemd: started, reloaded, watched, upgraded and stopped: ok"
