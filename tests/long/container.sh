#!/usr/bin/env bash
# Builds the image and runs it as somebody would: read-only, not root, its own network, the configuration that it comes with.
# Asks it over UDP and TCP, IPv4 and IPv6, checks its health, stops it. Root on Debian; takes what it needs from apt.
# Without a container registry in reach, the base images must be in buildah's store (or be made by a script beside the clone).
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { echo "container: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "needs root"
missing=()
for pair in buildah:buildah podman:podman runc:runc dig:bind9-dnsutils kdig:knot-dnsutils nsenter:util-linux; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null ||
    { apt-get update -q >/dev/null; DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null; }
fi

image=localhost/isochrone-test:$$ name=isochrone-test-$$
buildah=(buildah --storage-driver vfs)
podman=(podman --runtime "$(command -v runc)" --cgroup-manager cgroupfs --storage-driver vfs)
trap '"${podman[@]}" rm -f "$name" >/dev/null 2>&1; "${buildah[@]}" rmi "$image" >/dev/null 2>&1 || true' EXIT

bases=$(sed -n 's/^FROM \([^ ]*\).*/\1/p' Dockerfile)
for base in $bases; do
  "${buildah[@]}" inspect --type image "$base" >/dev/null 2>&1 || "${buildah[@]}" pull "$base" >/dev/null 2>&1 || {
    maker=../shared/container/base-images.sh
    [ -f "$maker" ] || fail "the base image $base is neither here nor in reach"
    apt-get install -y -q --no-install-recommends debootstrap >/dev/null
    bash "$maker" >/dev/null
    "${buildah[@]}" inspect --type image "$base" >/dev/null 2>&1 || fail "the base image $base could not be made"
  }
done

echo "container: building"
"${buildah[@]}" bud --format docker --isolation chroot --network host --pull-never -q -t "$image" . >/dev/null
echo "container: $("${podman[@]}" image inspect --format '{{.Size}}' "$image") bytes"

# Starts the image with these options and waits until it is healthy.
start() {
  "${podman[@]}" run -d --name "$name" --network none --read-only --cap-drop all --security-opt no-new-privileges \
    --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "$@" "$image" >/dev/null
  pid=$("${podman[@]}" inspect --format '{{.State.Pid}}' "$name")
  [ "$(awk '/^Uid:/ { print $2 }' "/proc/$pid/status")" = 65532 ] || fail "it runs as another user than 65532"
  local deadline=$((SECONDS + 60))
  until "${podman[@]}" healthcheck run "$name" >/dev/null 2>&1; do
    [ "$("${podman[@]}" inspect --format '{{.State.Running}}' "$name")" = true ] || { "${podman[@]}" logs "$name" >&2; fail "it ended by itself"; }
    [ $SECONDS -lt $deadline ] || { "${podman[@]}" logs "$name" >&2; fail "not healthy after 60 s"; }
    sleep 0.2
  done
}
inside() { nsenter --net --target "$pid" "$@"; }

# No thread holds a privilege, and all are filtered; $1: what the engine leaves in the bounding set.
holds_nothing() {
  local status line
  for status in /proc/"$pid"/task/*/status; do
    for line in CapInh:0000000000000000 CapPrm:0000000000000000 CapEff:0000000000000000 CapAmb:0000000000000000 "CapBnd:$1" NoNewPrivs:1 Seccomp:2; do
      [ "$(awk -v key="${line%:*}:" '$1 == key { print $2 }' "$status")" = "${line#*:}" ] || fail "$status: not ${line%:*} ${line#*:}"
    done
  done
  "${podman[@]}" exec "$name" isochrone status --json --admin http://127.0.0.1:8053 | tr -d ' \n' | grep -q '"seccomp":true' ||
    fail "it does not say that its system calls are filtered"
}

stop() {
  "${podman[@]}" stop -t 10 "$name" >/dev/null 2>&1 || fail "it does not stop"
  local code
  code=$("${podman[@]}" inspect --format '{{.State.ExitCode}}' "$name")
  [ "$code" = 0 ] || { "${podman[@]}" logs "$name" >&2; fail "SIGTERM ended it with status $code"; }
}

# Where the kernel asks for the capability, it is enough, and it is given up once the port is open.
start --cap-add NET_BIND_SERVICE --sysctl net.ipv4.ip_unprivileged_port_start=1024
holds_nothing 0000000000000400
stop
"${podman[@]}" rm "$name" >/dev/null
echo "container: healthy with NET_BIND_SERVICE alone"

start --sysctl net.ipv4.ip_unprivileged_port_start=0
holds_nothing 0000000000000000
echo "container: healthy without any capability"

owner=www.app.geo.example.com
for server in 127.0.0.1 ::1; do
  for transport in +notcp +tcp; do
    got=$(inside dig @"$server" $transport +short +tries=2 +time=3 "$owner" A)
    [[ $got =~ ^[0-9.]+$ ]] || fail "dig $transport @$server: ${got:-nothing}"
    got=$(inside kdig @"$server" $transport +short +subnet=192.0.2.0/24 "$owner" A)
    [[ $got =~ ^[0-9.]+$ ]] || fail "kdig $transport @$server: ${got:-nothing}"
  done
done
"${podman[@]}" exec "$name" isochrone status --admin http://127.0.0.1:8053 >/dev/null || fail "status fails"
"${podman[@]}" exec "$name" isochrone check >/dev/null || fail "check fails"
[ "$("${podman[@]}" exec "$name" sh -c 'touch /x 2>/dev/null; echo $?')" != 0 ] || fail "the root file system can be written to"

stop
echo "container: built, run, asked and stopped: ok"
