#!/usr/bin/env python3
"""Draws the exchanges and links of src/latency/detours/exchanges.rs on the dashboard's map.

    docs/detours_map.py > docs/detours.svg
"""
import pathlib
import re

root = pathlib.Path(__file__).parent.parent
table = (root / "src/latency/detours/exchanges.rs").read_text()
land = (root / "src/admin/page/land.path").read_text().strip()
rows = re.findall(r'\(\s*"([^"]+)",\s*(-?[\d.]+),\s*(-?[\d.]+),\s*&\[([^\]]*)\]', table)
places = {name: (float(latitude), float(longitude)) for name, latitude, longitude, _ in rows}
links = [(name, other) for name, _, _, others in rows for other in re.findall(r'"([^"]+)"', others)]


def xy(place, turn=0):
    latitude, longitude = place
    return (longitude + 180 + turn) / 360 * 1000, (90 - latitude) / 180 * 500


def line(a, b):
    """One line, or one on either side of the map where the way is shorter across its edge."""
    span = b[1] - a[1]
    if abs(span) <= 180:
        return [(xy(a), xy(b))]
    turn = -360 if span > 0 else 360
    return [(xy(a), xy(b, turn)), (xy(a, -turn), xy(b))]


print('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 40 1000 370" font-family="system-ui, sans-serif" font-size="9" role="img">')
print("<title>Where networks meet, and the ways between: what detours are worked out from</title>")
print("<style>.bg{fill:#fff}.land{fill:#e5e7eb}.link{stroke:#2563eb;stroke-width:.8;opacity:.7}.dot{fill:#111827}.t{fill:#333}"
      "@media(prefers-color-scheme:dark){.bg{fill:#0d1117}.land{fill:#1f2937}.link{stroke:#60a5fa}.dot{fill:#e5e7eb}.t{fill:#ccc}}</style>")
print('<rect class="bg" y="40" width="1000" height="370"/>')
print(f'<path class="land" d="{land}"/>')
for a, b in links:
    for (x1, y1), (x2, y2) in line(places[a], places[b]):
        print(f'<line class="link" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
for name, place in places.items():
    x, y = xy(place)
    print(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="1.8"><title>{name}</title></circle>')
for name in ["Miami", "Marseille", "Singapore", "Tokyo", "Johannesburg", "São Paulo", "Sydney", "Los Angeles", "Mumbai", "New York"]:
    x, y = xy(places[name])
    print(f'<text class="t" x="{x + 4:.1f}" y="{y + 9:.1f}">{name}</text>')
print("</svg>")
