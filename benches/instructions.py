#!/usr/bin/env python3
"""Counts the instructions that the release binary executes in user space for one query of each kind, with callgrind.

    benches/instructions.py             count, print, compare with instructions.txt; exit status 1 above +10 %
    benches/instructions.py --learning  the same, then count some kinds with and without `learn` and `prospect`; exit status 1 where these add
                                        3 % or more, too
    benches/instructions.py --record    write instructions.txt anew, after a change that is meant to cost (or to save) something

It is the whole program that is counted, under load: readiness, the system calls' own instructions, a batch's bookkeeping, the core.
The server is stopped while a burst of queries is sent and goes on when all of them wait for it, so that its batches are always full.
So, unlike times, instructions are the same on a busy machine and on a quiet one: two runs differ by less than one per cent. They
change with the compiler, and where the C library copies memory with other instructions of the processor.
"""
import argparse, os, random, re, shutil, signal, socket, struct, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
RECORDED = os.path.join(HERE, "instructions.txt")
PROGRAM = os.path.join(HERE, "..", "target", "release", "isochrone")
ALLOWED = 1.10       # above this times the recorded figure it fails
QUERIES = 10_240     # of a kind, all different
BURST = 256          # queries that wait for a server at once: whole batches for all of them, and within any receive buffer
LEARNING_ADDS = 0.03 # of the instructions of any kind of query, less than this
LEARNING_KINDS = {"ecs", "ecs6", "plain", "nxdomain", "refused", "junk"} # what it has most to do with, and the cheapest
PATIENCE_S = 120     # longer than anything takes on a busy machine; only waited out by a failure

CONFIG = """
[server]
listen = ["{host}:{port}"]
threads = 1
identity = "bench"
region = "{region}"
[admin]
listen = ""
{more}
[regions.us]
location = {{ latitude = 39.04, longitude = -77.49 }}
endpoints = ["192.0.2.1"]
[regions.eu]
location = {{ latitude = 50.11, longitude = 8.68 }}
endpoints = ["192.0.2.2"]
[regions.ap]
location = {{ latitude = 1.35, longitude = 103.82 }}
endpoints = ["192.0.2.3"]
[zones."example.com"]
nameservers = ["ns1.example.net."]
records = "www 60 A 192.0.2.80"
[zones."example.com".routes."*.app"]
[zones."signed.example.com"]
nameservers = ["ns1.example.net."]
dnssec-key = "zone.key"
[zones."signed.example.com".routes."*.app"]
"""

A, ANY = 1, 255


def name(*labels):
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def query(number, qname, qtype=A, opt=None, dnssec_ok=False):
    """A message; `opt` are the bytes of its OPT record's options, None: no OPT."""
    message = struct.pack(">HHHHHH", number & 0xFFFF, 0, 1, 0, 0, 0 if opt is None else 1) + qname + struct.pack(">HH", qtype, 1)
    if opt is not None:
        message += b"\0" + struct.pack(">HHIH", 41, 1232, 0x8000 if dnssec_ok else 0, len(opt)) + opt
    return message


def kinds():
    """Of each kind of query its name, what it is, and the messages: the same in every run."""
    chance = random.Random(20260617)
    label = lambda: b"h%010x" % chance.getrandbits(40)
    # Unicast networks: 1.0.0.0 to 223.255.255.0, and the /48s of 2000::/3.
    ecs4 = lambda: struct.pack(">HHHBB", 8, 7, 1, 24, 0) + chance.randrange(0x010000, 0xE00000).to_bytes(3, "big")
    ecs6 = lambda: struct.pack(">HHHBB", 8, 10, 2, 48, 0) + (0x2000_0000_0000 | chance.getrandbits(45)).to_bytes(6, "big")
    app = lambda: name(label(), b"app", b"example", b"com")
    signed = lambda: name(label(), b"app", b"signed", b"example", b"com")
    deep = lambda: name(*(b"%x" % chance.getrandbits(32) for _ in range(6)), b"app", b"example", b"com")

    def junk(number):
        # Too short to be a query; a response; neither: the last one of three gets a reply.
        length = chance.randrange(12) if number % 3 == 0 else chance.randrange(12, 600)
        noise = bytearray(chance.randbytes(length))
        if length >= 12:
            noise[2] = noise[2] & 0x7F | (0x80 if number % 3 == 1 else 0)
        return bytes(noise)

    table = [
        ("ecs", "route, IPv4 client subnet", lambda n: query(n, app(), opt=ecs4())),
        ("ecs6", "route, IPv6 client subnet", lambda n: query(n, app(), opt=ecs6())),
        ("edns", "route, EDNS without client subnet", lambda n: query(n, app(), opt=b"")),
        ("plain", "route, no EDNS", lambda n: query(n, app())),
        ("random", "six random labels below a wildcard", lambda n: query(n, deep())),
        ("nxdomain", "name that does not exist", lambda n: query(n, name(label(), b"example", b"com"))),
        ("static", "static record", lambda n: query(n, name(b"www", b"example", b"com"), opt=b"")),
        ("any", "type ANY of a route", lambda n: query(n, app(), ANY)),
        ("refused", "name of a foreign zone", lambda n: query(n, name(label(), b"org"))),
        ("junk", "random bytes, 0 to 600", junk),
        ("signed", "signed route, client subnet, DO", lambda n: query(n, signed(), opt=ecs4(), dnssec_ok=True)),
        ("denial", "signed NXDOMAIN, DO", lambda n: query(n, name(label(), b"signed", b"example", b"com"), opt=b"", dnssec_ok=True)),
    ]
    return [(kind, what, [make(n) for n in range(QUERIES)]) for kind, what, make in table]


def is_answered(message):
    return len(message) >= 12 and not message[2] & 0x80


class Counted:
    """A server under callgrind. `command` is started in `folder` and must serve `host`:`port`."""

    def __init__(self, command, folder, port, probe, host="127.0.0.1"):
        self.folder, self.dumps = folder, 0
        self.log = open(os.path.join(folder, "log"), "w+")
        tool = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--trace-children=yes", f"--callgrind-out-file={folder}/counts.%p"]
        self.process = subprocess.Popen(tool + command, cwd=folder, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.connect((host, port))
        try:
            self.wait_for_answer(probe)
        except BaseException:
            self.stop()
            raise

    def wait_for_answer(self, probe):
        deadline = time.monotonic() + PATIENCE_S
        self.socket.settimeout(0.5)
        while True:
            try:
                self.socket.send(probe)
                self.socket.recv(4096)
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.log.seek(0)
                    sys.exit("the server does not answer under callgrind:\n" + self.log.read()[-3000:])
                time.sleep(0.05)
        # Replies to probes that were given up must not be taken for others.
        try:
            while True:
                self.socket.recv(4096)
        except OSError:
            self.socket.settimeout(PATIENCE_S)

    def pids(self):
        """The processes of the server, valgrind's own helpers apart."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in os.listdir(f"/proc/{pid}/task"):
                todo += map(int, open(f"/proc/{pid}/task/{task}/children").read().split())
        return found

    def tell(self, *words):
        for pid in self.pids():
            subprocess.run(["vgdb", f"--pid={pid}", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=PATIENCE_S)

    def instructions(self, messages):
        """Instructions in user space, of all processes, for all of these messages."""
        self.tell("zero")
        for start in range(0, len(messages), BURST):
            self.answer(messages[start : start + BURST])
        for old in self.count_files():
            os.remove(old)
        self.tell("dump")
        return sum(total(path) for path in self.count_files())

    def answer(self, burst):
        """Lets the server answer a burst that waits for it as a whole."""
        pids = self.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        while not all(state(pid) == "T" for pid in pids):
            time.sleep(0.0001)
        for message in burst:
            self.socket.send(message)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        missing = sum(map(is_answered, burst))
        try:
            while missing:
                self.socket.recv(4096)
                missing -= 1
        except TimeoutError:
            sys.exit(f"{missing} of {len(burst)} replies are missing after {PATIENCE_S} s")

    def count_files(self):
        return [os.path.join(self.folder, file) for file in os.listdir(self.folder) if file.startswith("counts.")]

    def begin(self):
        """From here on instructions are counted; what is translated for that, once, is none of the program's own."""
        self.tell("instrumentation", "on")

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.socket.close()
        self.log.close()


def state(pid):
    return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]


def total(path):
    found = re.findall(r"^(?:totals|summary): (\d+)", open(path).read(), re.M)
    return int(found[-1]) if found else 0


def own_address():
    """An address of this host that is no loopback one, if it has any: clients on those are measured by nobody. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asks_for_the_way:
        try:
            asks_for_the_way.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return asks_for_the_way.getsockname()[0]


def free_port(host="127.0.0.1"):
    """A port that nobody has for UDP or TCP now."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind((host, 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return tcp.getsockname()[1]


# Behind [admin] in the configuration.
LEARNING = """
[latency]
learn = true
prospect = 0.01
"""


def count_ours(program, folder, queries, more="", region="", host="127.0.0.1"):
    """Instructions a query for each of `queries` (name, what, messages)."""
    port = free_port(host)
    subprocess.run([program, "key", "new", "signed.example.com", "--out", f"{folder}/zone.key"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    open(f"{folder}/isochrone.toml", "w").write(CONFIG.format(host=host, port=port, more=more, region=region))
    server = Counted([program, "serve", "--config", f"{folder}/isochrone.toml"], folder, port, query(0, name(b"www", b"example", b"com")), host)
    try:
        server.begin()
        server.instructions(queries[0][2][:1000])
        return {kind: server.instructions(messages) / len(messages) for kind, _, messages in queries}
    finally:
        server.stop()


def read_recorded():
    lines = [line.split() for line in open(RECORDED) if line.strip() and not line.startswith("#")]
    return {kind: int(count) for kind, count, *_ in lines}


def write_recorded(counts, queries):
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.split()[1]
    with open(RECORDED, "w") as file:
        file.write("# Instructions in user space for one query of a kind, the whole program counted; what benches/instructions.py compares with.\n")
        file.write(f"# Recorded with Rust {compiler}. Record anew: cargo build --release && benches/instructions.py --record\n")
        for kind, what, _ in queries:
            file.write(f"{kind:<10} {counts[kind]:>6.0f}   {what}\n")


def compare_learning(program, queries):
    """What is to be said against what learning costs."""
    queries = [query for query in queries if query[0] in LEARNING_KINDS]
    host = own_address()
    with tempfile.TemporaryDirectory() as folder:
        without = count_ours(program, folder, queries, host=host)
    with tempfile.TemporaryDirectory() as folder:
        learning = count_ours(program, folder, queries, LEARNING, "eu", host)
    print(f"{'KIND':<10} {'OFF':>6} {'LEARNS':>6} {'CHANGE':>7}   WHAT")
    for kind, what, _ in queries:
        print(f"{kind:<10} {without[kind]:>6.0f} {learning[kind]:>6.0f} {100 * (learning[kind] / without[kind] - 1):>+5.1f} %   {what}")
    too_much = [kind for kind, _, _ in queries if learning[kind] >= without[kind] * (1 + LEARNING_ADDS)]
    return [f"learning adds {100 * LEARNING_ADDS:.0f} % or more: {', '.join(too_much)}"] if too_much else []


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--record", action="store_true", help="write instructions.txt anew")
    arguments.add_argument("--learning", action="store_true", help="count with learning, too")
    arguments.add_argument("--program", default=PROGRAM, help="the release binary [default: target/release/isochrone]")
    options = arguments.parse_args()
    for tool in ("valgrind", "vgdb"):
        if not shutil.which(tool):
            sys.exit(f"no {tool}: install the package valgrind")
    program = os.path.abspath(options.program)
    if not os.path.exists(program):
        sys.exit(f"{program} is missing: cargo build --release")
    queries = kinds()
    with tempfile.TemporaryDirectory() as folder:
        counts = count_ours(program, folder, queries)
    recorded = {} if options.record else read_recorded()
    worse = []
    print(f"{'KIND':<10} {'NOW':>6} {'RECORDED':>9} {'CHANGE':>7}   WHAT")
    for kind, what, _ in queries:
        before = recorded.get(kind)
        change = f"{100 * (counts[kind] / before - 1):+.1f} %" if before else "new"
        print(f"{kind:<10} {counts[kind]:>6.0f} {before or '-':>9} {change:>7}   {what}")
        if not options.record and (not before or counts[kind] > before * ALLOWED):
            worse.append(kind)
    if options.record:
        write_recorded(counts, queries)
        print(f"recorded in {os.path.relpath(RECORDED)}")
        return
    wrong = []
    if worse:
        wrong.append(f"more than {100 * (ALLOWED - 1):.0f} % over the recorded figure: {', '.join(worse)}. If that is the price of something "
                 "worth it, record anew (cargo build --release && benches/instructions.py --record) and say why in the commit")
    if options.learning:
        print()
        wrong += compare_learning(program, queries)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
