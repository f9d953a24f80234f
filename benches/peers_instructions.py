#!/usr/bin/env python3
"""Instructions in user space for one answered ECS query: this server, gdnsd and NSD, counted with callgrind on the same 100,000 queries.

    cargo build --release && benches/peers_instructions.py [SERVER...]

Needs ../shared/bench beside the repository: its setup.sh installs the peers, fetches the city database and writes the queries; its conf/
configures them all for the same job (a wildcard with one of three addresses by the client's place; NSD, which knows no places, gives all
clients the same). Counted as in instructions.py: whole programs, all their processes, under load, without their start.
"""
import os, shutil, struct, subprocess, sys, tempfile

sys.dont_write_bytecode = True  # no folder of compiled Python among the sources
from instructions import HERE, PROGRAM, Counted, free_port

BENCH = os.path.join(HERE, "..", "..", "shared", "bench")
DATA = os.environ.get("BENCH_DIR") or os.path.join(tempfile.gettempdir(), "isochrone-bench")
DATABASE = os.environ.get("BENCH_MMDB", f"{DATA}/mmdb/City.mmdb")
WARM_UP = 2_048


def configure(template, path, port, folder):
    text = open(f"{BENCH}/conf/{template}").read()
    for key, value in {"PORT": port, "THREADS": 1, "RUN": folder, "MMDB": DATABASE}.items():
        text = text.replace(f"@{key}@", str(value))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").write(text)


def ours(folder, port):
    configure("isochrone.toml", f"{folder}/isochrone.toml", port, folder)
    return [os.path.abspath(PROGRAM), "serve", "--config", f"{folder}/isochrone.toml"]


def gdnsd(folder, port):
    configure("gdnsd.conf", f"{folder}/config", port, folder)
    configure("gdnsd.zone", f"{folder}/zones/example.com", port, folder)
    os.makedirs(f"{folder}/run")
    os.makedirs(f"{folder}/state")
    return [shutil.which("gdnsd"), "-c", folder, "start"]


def nsd(folder, port):
    configure("example.com.zone", f"{folder}/example.com.zone", port, folder)
    configure("nsd.conf", f"{folder}/nsd.conf", port, folder)
    return [shutil.which("nsd"), "-d", "-c", f"{folder}/nsd.conf"]


SERVERS = {"isochrone": ours, "gdnsd": gdnsd, "nsd": nsd}


def read_queries(path):
    data, at, found = open(path, "rb").read(), 0, []
    while at < len(data):
        (length,) = struct.unpack_from(">H", data, at)
        found.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return found


def main():
    names = sys.argv[1:] or list(SERVERS)
    if unknown := [name for name in names if name not in SERVERS]:
        sys.exit(f"unknown: {', '.join(unknown)}; known: {', '.join(SERVERS)}")
    if not os.path.exists(BENCH):
        sys.exit(f"{os.path.normpath(BENCH)} is missing")
    subprocess.run([f"{BENCH}/setup.sh"], check=True)
    queries = read_queries(f"{DATA}/q/ecs.bin")
    print(f"{'SERVER':<10} {'INSTRUCTIONS A QUERY':>20}   ({len(queries)} queries with a client subnet, all different)", flush=True)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            port = free_port()
            server = Counted(SERVERS[name](folder, port), folder, port, queries[0])
            try:
                server.begin()
                server.instructions(queries[:WARM_UP])
                print(f"{name:<10} {server.instructions(queries) / len(queries):>20.0f}", flush=True)
            finally:
                server.stop()


if __name__ == "__main__":
    main()
