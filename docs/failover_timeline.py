#!/usr/bin/env python3
"""Draws failover.svg (with flapping below, where the long form was recorded), and prints the tables of failover.md, from what the failover tests recorded.

    cargo test --test failover -- --long --record target/failover/long
    cargo test --test failover -- --record target/failover/short
    docs/failover_timeline.py target/failover/*

Of several recordings of the same scenario the tables show the lowest and the highest figure, the picture the last."""
import collections, json, pathlib, sys

HERE = pathlib.Path(__file__).parent
STYLE = """.bg{fill:#fff}.t{fill:#222}.d{fill:#666}.g{stroke:#ccc}.f{stroke:#111;stroke-width:1.5}
.ra{fill:#2563eb}.rb{fill:#ea8a0b}.rc{fill:#8b5cf6}.rx{fill:#dc2626}
@media(prefers-color-scheme:dark){.bg{fill:#0d1117}.t{fill:#ddd}.d{fill:#999}.g{stroke:#333}.f{stroke:#fff}
.ra{fill:#60a5fa}.rb{fill:#fbbf24}.rc{fill:#a78bfa}.rx{fill:#f87171}}"""
WIDTH, LEFT, RIGHT, ROW = 900, 290, 20, 18


def load(folders):
    """Outcomes by times, scenario and server, oldest first."""
    outcomes = collections.OrderedDict()
    for folder in folders:
        for file in sorted(pathlib.Path(folder).glob("*.json")):
            for outcome in json.loads(file.read_text()):
                name = outcome["scenario"].removesuffix(", defaults")
                key = (outcome["times"], name, outcome["server"])
                outcomes.setdefault(key, []).append(outcome)
    return outcomes


def bar(outcome, y, x, height, begin, end):
    """The answers of one outcome as coloured stretches; the steps as lines."""
    parts = []
    for start, stop, region in outcome["segments"]:
        start, stop = max(start, begin), min(stop, end)
        if stop > start:
            colour = "rx" if region is None else "r" + "abc"[region]
            parts.append(f'<rect class="{colour}" x="{x(start):.2f}" y="{y}" width="{x(stop) - x(start):.2f}" height="{height}"/>')
    return "".join(parts)


def axis(x, top, bottom, step, end, unit="s"):
    parts = []
    at = 0
    while at <= end:
        parts.append(f'<path class="g" d="M{x(at):.1f} {top} V{bottom}"/><text class="d" x="{x(at):.1f}" y="{bottom + 14}" text-anchor="middle">{at} {unit}</text>')
        at += step
    return "".join(parts)


def panel(title, rows, top, before, end, step):
    """Rows of (label, outcome), each moved so that its first step is at 0; returns the drawing and where it ends."""
    x = lambda t: LEFT + (t + before) / (end + before) * (WIDTH - LEFT - RIGHT)
    bottom = top + 24 + ROW * len(rows)
    parts = [f'<text class="t" x="12" y="{top + 10}" font-weight="600">{title}</text>', axis(x, top + 18, bottom, step, end)]
    for n, (label, outcome) in enumerate(rows):
        y = top + 24 + ROW * n
        zero = outcome["steps"][0][0]
        shifted = lambda t: x(t - zero)
        weight = "" if "gdnsd" in label else ' font-weight="500"'
        parts.append(f'<text class="t" x="{LEFT - 8}" y="{y + 11}" text-anchor="end"{weight}>{label}</text>')
        parts.append(bar(outcome, y + 2, shifted, ROW - 6, zero - before, zero + end))
        for at, _ in outcome["steps"]:
            if at - zero <= end:
                parts.append(f'<path class="f" d="M{shifted(at):.2f} {y} V{y + ROW - 2}"/>')
    return "".join(parts), bottom + 34


def legend(y):
    items = [("ra", "region a, the first choice"), ("rb", "region b"), ("rc", "region c"), ("rx", "no address")]
    parts, at = [], 12
    for colour, label in items:
        parts.append(f'<rect class="{colour}" x="{at}" y="{y}" width="12" height="12"/><text class="t" x="{at + 17}" y="{y + 10}">{label}</text>')
        at += 40 + 7 * len(label)
    parts.append(f'<path class="f" d="M{at} {y} V{y + 12}"/><text class="t" x="{at + 7}" y="{y + 10}">fault begins, ends</text>')
    return "".join(parts)


def svg(title, body, height):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="12" role="img">\n'
            f"<title>{title}</title><style>{STYLE}</style>\n<rect class=\"bg\" width=\"{WIDTH}\" height=\"{height}\"/>\n{body}\n</svg>\n")


ORDER = ["refused", "reset", "black hole", "half-open", "partition", "slow, just over the timeout", "slow, just under the timeout",
         "status 500", "body mismatch", "TLS expired", "TLS wrong name", "TLS self-signed", "partition, then another",
         "all regions down", "prober cut off", "prober cut off while a is down", "endpoint address change", "1,000 endpoints refuse", "1,000 endpoints silent",
         "delay and reordering"]


TOGETHER = ["all regions down", "prober cut off"]  # answers may go anywhere meanwhile: no time can be told


def timelines(outcomes):
    newest = lambda times, name, server: (outcomes.get((times, name, server)) or [None])[-1]
    compared, alone, fast = [], [], []
    for name in ORDER:
        ours = newest("defaults", name, "isochrone")
        rivals = [server for times, n, server in outcomes if (times, n) == ("defaults", name) and server != "isochrone"]
        if ours and rivals:
            ours = max(outcomes["defaults", name, "isochrone"], key=lambda o: o["segments"][-1][1])
            compared.append((f"{name} · isochrone", ours))
            compared += [(server, newest("defaults", name, server)) for server in rivals]
        elif ours:
            alone.append((name, ours))
        for times in dict.fromkeys(times for times, n, _ in outcomes if n == name and times != "defaults"):
            label = name if times == "1 s / 500 ms" else f"{name} ({times})"
            fast.append((label, newest(times, name, "isochrone")))
    y, body = 44, legend(12)
    for title, rows, before, end, step in [
        ("Default times, beside gdnsd; the fault ends when all have noticed", compared, 10, 310, 30),
        ("Default times", alone, 2, 60, 5),
        ("Checks every second (in brackets: other intervals and timeouts)", fast, 1.5, 18, 2),
    ]:
        if rows:
            drawn, y = panel(title, rows, y, before, end, step)
            body += drawn
    return body, y


def flapping(outcomes):
    servers = list(dict.fromkeys(server for times, name, server in outcomes if name.startswith("flapping") and times == "defaults"))
    if not servers:
        return "", 0
    left, gap, row, top = 40, 16, 7, 62
    width = (WIDTH - left - RIGHT - gap * (len(servers) - 1)) / len(servers)
    rows = sorted({int(name.split()[-2]) for times, name, _ in outcomes if name.startswith("flapping") and times == "defaults"})
    length = max(o[-1]["segments"][-1][1] - o[-1]["steps"][0][0] for (times, name, _), o in outcomes.items()
                 if name.startswith("flapping") and times == "defaults")
    parts = ['<text class="t" x="12" y="22" font-weight="600">A region that flaps with each period from 1 s on, then stays well</text>']
    for column, server in enumerate(servers):
        x0 = left + column * (width + gap)
        parts.append(f'<text class="t" x="{x0:.1f}" y="50" font-weight="600">{server}</text>')
        for n, period in enumerate(rows):
            outcome = outcomes["defaults", f"flapping, period {period} s", server][-1]
            zero = outcome["steps"][0][0]
            x = lambda t: x0 + (t - zero) / length * width
            parts.append(bar(outcome, top + row * n, x, row - 1, zero, zero + length))
            for at, _ in outcome["steps"][1:]:
                parts.append(f'<path class="f" d="M{x(at):.2f} {top + row * n} V{top + row * (n + 1)}"/>')
        for minutes in range(0, int(length // 60) + 1, max(1, round(length / 300))):
            parts.append(f'<text class="d" x="{x0 + minutes * 60 / length * width:.1f}" y="{top + row * len(rows) + 14}" text-anchor="middle">{minutes} min</text>')
    for n, period in enumerate(rows):
        if period == 1 or period % 10 == 0:
            parts.append(f'<text class="d" x="{left - 6}" y="{top + row * n + 7}" text-anchor="end">{period} s</text>')
    height = top + row * len(rows) + 26
    return "".join(parts), height


def spread(outcomes, step):
    values = [o["moves"][step] for o in outcomes if step < len(o["moves"])]
    known = [v for v in values if v is not None]
    if not known:
        return "never" if values else "-"
    low, high = f"{min(known):.1f}", f"{max(known):.1f}"
    return f"{low} s" if low == high else f"{low} to {high} s"


def spread_of(runs, step):
    """The lowest and the highest of the counts of a step, over several runs."""
    values = [counts[step] for counts in runs if step < len(counts)]
    low, high = f"{min(values):,}", f"{max(values):,}"
    return low if low == high else f"{low} to {high}"


def table(head, rows):
    if not rows:
        return
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def tables(outcomes):
    """What failover.md shows, in its order."""
    of = lambda times, name, server="isochrone": outcomes.get((times, name, server), [])
    both = lambda found: f"{spread(found, 0)} / {spread(found, 1)}"
    rivals = ["gdnsd", "gdnsd 3/2/2"]
    beside = [name for name in ORDER if of("defaults", name, rivals[0])]
    compared = [name for name in beside if name not in TOGETHER]
    table(["fault", "isochrone: out / back"] + [f"{rival}: out / back" for rival in rivals],
          [[name, both(of("defaults", name))] + [both(of("defaults", name, rival)) for rival in rivals] for name in compared])
    course = lambda found: " ".join("?" if region is None else "abc"[region] for _, _, region in found[-1]["segments"][:12])
    table(["fault"] + ["isochrone: answers"] + [f"{rival}: answers" for rival in rivals],
          [[name] + [course(of("defaults", name, server)) for server in ["isochrone"] + rivals] for name in beside if name in TOGETHER])
    dead = lambda found: ", ".join(spread_of(o, n) for o in [[o.get("to_failed", []) for o in found]] for n in range(len(o[-1]))) or "-"
    table(["fault", "isochrone: answers to the dead region, 100 a second"], [[name, dead(of("defaults", name))] for name in compared])
    counts = lambda found: [f"{sum(o[key] for o in found):,}" for key in ("asked", "lost", "wrong")]
    moves = lambda found: ", ".join(spread(found, n) for n in range(len(found[-1]["moves"]))) or "-"
    head = ["fault", "answers", "changed after", "to the dead", "asked", "lost", "wrong"]
    for title, times in [("alone", ["defaults"]), ("fast", [t for t in dict.fromkeys(t for t, _, _ in outcomes) if t != "defaults"])]:
        rows = []
        for name in ORDER:
            for t in times:
                found = of(t, name)
                if found and not (title == "alone" and name in beside):
                    label = name if t in ("defaults", "1 s / 500 ms") else f"{name} ({t})"
                    rows.append([label, course(found), moves(found), dead(found)] + counts(found))
        table(head, rows)
    loss = [key for key in outcomes if "loss" in key[1]]
    table(["loss", "server", "asked", "lost", "changes"], [[key[1], key[2]] + counts(outcomes[key])[:2] + [str(outcomes[key][-1]["changes"])] for key in loss])
    flaps = [key for key in outcomes if key[1].startswith("flapping")]
    for times in dict.fromkeys(key[0] for key in flaps):
        servers = list(dict.fromkeys(key[2] for key in flaps if key[0] == times))
        periods = dict.fromkeys(key[1] for key in flaps if key[0] == times)
        rows = []
        for period in periods:
            found = [of(times, period, server)[-1] for server in servers]
            away = [sum(b - a for a, b, region in o["segments"] if region != 0) / (o["segments"][-1][1] - o["segments"][0][0]) for o in found]
            well = lambda o: "" if o.get("away_while_well_s") is None else f", {o['away_while_well_s']:.0f} s of it well"
            held = lambda o: ", held down" if o.get("held") else ""
            rows.append([period] + [f"{o['changes']} ({share:.0%} away{well(o)}{held(o)})" for o, share in zip(found, away)])
        table([f"times: {times}"] + servers, rows)
    everything = [o for all_ in outcomes.values() for o in all_ if o["server"] == "isochrone"]
    followed = max(f for o in everything for f in o["followed"])
    asked, lost, wrong = (sum(o[key] for o in everything) for key in ("asked", "lost", "wrong"))
    print(f"isochrone: {asked:,} asked, {lost} lost, {wrong} wrong; slowest answer {max(o['slowest_ms'] for o in everything):.0f} ms; "
          f"followed the verdict within {followed * 1000:.0f} ms")


if __name__ == "__main__":
    recorded = load(sys.argv[1:])
    body, top = timelines(recorded)
    below, height = flapping(recorded)
    body += f'<g transform="translate(0 {top})">{below}</g>'
    (HERE / "failover.svg").write_text(svg("Which region was answered, over time", body, top + height))
    tables(recorded)
