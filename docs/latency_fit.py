#!/usr/bin/env python3
"""Fits the distance model of src/latency/model.rs to round trips, judges the corners that stand there, draws latency.svg.

    pip install numpy scipy
    docs/latency_fit.py PINGS.csv

PINGS.csv has a header and the columns set,a,b,distance_km,rtt_ms: which set of measurements a line belongs to (each set gets
the same weight), the group of either end (a country, say; folds of groups are left out in turn), distance, round trip."""
import csv, pathlib, re, sys
import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_matrix, eye, hstack, vstack

HERE = pathlib.Path(__file__).parent
FLOOR = 2 * 1.468 / 299.792458  # ms of round trip for a km, light in straight fibre
KNOTS = np.array([0, 500, 1500, 4000, 10000, 20015], float)
BUCKETS = [0, 500, 1000, 2000, 4000, 6000, 8000, 10000, 13000, 16000, 20016]


def shipped():
    """The corners in src/latency/model.rs."""
    source = (HERE.parent / "src/latency/model.rs").read_text()
    table = re.search(r"const CORNERS.*?=\s*\[(.*?)\];", source, re.S).group(1)
    return np.array([[float(x.replace("_", "")) for x in pair] for pair in re.findall(r"\(([\d_.]+), ([\d_.]+)\)", table)])


def fit(km, ms, weight, knots=KNOTS):
    """Round trip at each knot: least weighted absolute error, concave, nowhere flatter than light in fibre."""
    i = np.clip(np.searchsorted(knots, km, side="right") - 1, 0, len(knots) - 2)
    t = (km - knots[i]) / (knots[i + 1] - knots[i])
    n, k, row = len(km), len(knots), np.arange(len(km))
    basis = csr_matrix((np.r_[1 - t, t], (np.r_[row, row], np.r_[i, i + 1])), (n, k))
    slope = np.zeros((k - 1, k))
    for j, width in enumerate(np.diff(knots)):
        slope[j, j:j + 2] = -1 / width, 1 / width
    shape = csr_matrix(np.vstack([-slope, np.diff(slope, axis=0)]))
    bound = np.r_[np.full(k - 1, -FLOOR), np.zeros(k - 2)]
    rows = vstack([hstack([basis, -eye(n)]), hstack([-basis, -eye(n)]), hstack([shape, csr_matrix((len(bound), n))])])
    found = linprog(np.r_[np.zeros(k), weight], A_ub=rows.tocsr(), b_ub=np.r_[ms, -ms, bound], method="highs-ipm",
                    bounds=[(1, None)] * k + [(0, None)] * n)
    return found.x[:k]


def weights(sets, km):
    """Each set the same total; a near pair counts more (of its distance alone, so the result stays a median)."""
    weight = 1 / (20 + FLOOR * km)
    for name in np.unique(sets):
        weight[sets == name] /= weight[sets == name].sum()
    return weight * len(km)


def report(title, error):
    print(f"{title:44s} mean |e| {abs(error).mean():6.1f}  median |e| {np.median(abs(error)):6.1f}  median e {np.median(error):+7.1f}")


def draw(sets, km, ms, corners):
    """Distance against round trip: the model, light in fibre, and the middle 80 % of each set."""
    w, h, left, top = 760, 420, 56, 16
    x = lambda d: left + d / 20000 * (w - left - 30)
    y = lambda v: top + (1 - min(v, 400) / 400) * (h - top - 48)
    path = lambda points: "M" + " L".join(f"{x(d):.1f} {y(v):.1f}" for d, v in points)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" font-family="system-ui, sans-serif" font-size="12" role="img">',
           "<title>Round trip over distance: measurements, model, light in fibre</title>",
           "<style>.bg{fill:#fff}.t{fill:#333}.g{stroke:#ddd}.m{stroke:#111}.f{stroke:#777}.s0{fill:#2563eb;stroke:#2563eb}.s1{fill:#c2570c;stroke:#c2570c}"
           "@media(prefers-color-scheme:dark){.bg{fill:#0d1117}.t{fill:#ccc}.g{stroke:#333}.m{stroke:#fff}.f{stroke:#999}"
           ".s0{fill:#60a5fa;stroke:#60a5fa}.s1{fill:#fb923c;stroke:#fb923c}}</style>", f'<rect class="bg" width="{w}" height="{h}"/>']
    for v in range(0, 401, 100):
        out.append(f'<path class="g" d="M{left} {y(v):.1f} H{w - 30}"/><text class="t" x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v}</text>')
    for d in range(0, 20001, 4000):
        out.append(f'<text class="t" x="{x(d):.1f}" y="{h - 28}" text-anchor="middle">{d:,}</text>')
    out.append(f'<text class="t" x="{(w + left) / 2}" y="{h - 8}" text-anchor="middle">great-circle distance, km</text>'
               f'<text class="t" transform="translate(14 {h / 2}) rotate(-90)" text-anchor="middle">round trip, ms</text>')
    for number, name in enumerate(np.unique(sets)):
        points = []
        for low in range(0, 20000, 1000):
            here = ms[(sets == name) & (km >= low) & (km < low + 1000)]
            if len(here) >= 20:
                points.append((low + 500, *np.percentile(here, [10, 50, 90])))
        band = [(p[0], p[3]) for p in points] + [(p[0], p[1]) for p in reversed(points)]
        out.append(f'<path class="s{number}" style="stroke:none" fill-opacity=".18" d="{path(band)} Z"/>'
                   f'<path class="s{number}" fill="none" style="fill:none" stroke-width="1.5" d="{path([(p[0], p[2]) for p in points])}"/>')
        out.append(f'<rect class="s{number}" fill-opacity=".5" x="{left + 14}" y="{top + 52 + 20 * number}" width="24" height="10"/>'
                   f'<text class="t" x="{left + 46}" y="{top + 61 + 20 * number}">{name}: median, middle 80 %</text>')
    for klass, dash, points, label, at in (("m", "", corners, "the model", 14), ("f", ' stroke-dasharray="5 4"', [(0, 0), (20015, 20015 * FLOOR)], "light in fibre", 34)):
        out.append(f'<path class="{klass}" fill="none" stroke-width="2"{dash} d="{path(points)}"/>'
                   f'<path class="{klass}" stroke-width="2"{dash} d="M{left + 14} {top + at} h24"/><text class="t" x="{left + 46}" y="{top + at + 4}">{label}</text>')
    (HERE / "latency.svg").write_text("\n".join(out + ["</svg>"]) + "\n")


def main():
    lines = list(csv.DictReader(open(sys.argv[1])))
    column = lambda name, kind: np.array([kind(line[name]) for line in lines])
    sets, a, b, km, ms = column("set", str), column("a", str), column("b", str), column("distance_km", float), column("rtt_ms", float)
    real = ms >= FLOOR * km  # nothing beats light: such a line has a wrong place
    print(f"{len(ms)} lines, {(~real).sum()} faster than light in fibre are left out")
    sets, a, b, km, ms = sets[real], a[real], b[real], km[real], ms[real]
    print("fitted corners: ", np.c_[KNOTS, np.round(fit(km, ms, weights(sets, km)), 1)].tolist())
    corners = shipped()
    print("shipped corners:", corners.tolist())
    error = np.interp(km, *corners.T) - ms
    for name in np.unique(sets):
        mine = sets == name
        report(f"{name} ({mine.sum()}): the model", error[mine])
        report("    light in fibre", (FLOOR * km - ms)[mine])
        groups, left_out = np.unique(np.r_[a[mine], b[mine]]), np.full(len(km), np.nan)
        for fold in range(8):
            out = groups[fold::8]
            train = ~((np.isin(a, out) | np.isin(b, out)) & mine)
            test = np.isin(a, out) & mine
            left_out[test] = np.interp(km[test], KNOTS, fit(km[train], ms[train], weights(sets[train], km[train]))) - ms[test]
        report("    fitted without the group of the source", left_out[mine])
        others = ~mine
        if others.any():
            values = fit(km[others], ms[others], weights(sets[others], km[others]))
            report("    fitted to the other sets alone", np.interp(km[mine], KNOTS, values) - ms[mine])
    print("\n| km | set | pairs | median ms | model's median error | median absolute error | light in fibre's median error |\n|---|---|---|---|---|---|---|")
    for low, high in zip(BUCKETS, BUCKETS[1:]):
        for name in np.unique(sets):
            k = (sets == name) & (km >= low) & (km < high)
            print(f"| {low:,} to {high:,} | {name} | {k.sum()} | {np.median(ms[k]):.0f} | {np.median(error[k]):+.0f} | "
                  f"{np.median(abs(error[k])):.0f} | {np.median((FLOOR * km - ms)[k]):+.0f} |")
    draw(sets, km, ms, corners)


if __name__ == "__main__":
    main()
