#!/usr/bin/env python3
"""Makes the land outline of the dashboard's map, one SVG path, from Natural Earth's 1:110m land (public domain).

    npm pack world-atlas && tar xzf world-atlas-*.tgz
    docs/land_outline.py package/land-110m.json > src/admin/page/land.path

The map is 1000 by 500: longitude and latitude as they are (plate carree), north at the top. Antarctica is left out.
"""
import json
import sys

topology = json.load(open(sys.argv[1]))
scale, shift = topology["transform"]["scale"], topology["transform"]["translate"]


def decoded(arc):
    x = y = 0
    for dx, dy in arc:
        x, y = x + dx, y + dy
        yield x * scale[0] + shift[0], y * scale[1] + shift[1]


arcs = [list(decoded(arc)) for arc in topology["arcs"]]


def ring(indices):
    points = []
    for index in indices:
        arc = arcs[index] if index >= 0 else arcs[~index][::-1]
        points += arc[1:] if points else arc
    return points


def polygons(geometry):
    if geometry["type"] == "GeometryCollection":
        return [polygon for part in geometry["geometries"] for polygon in polygons(part)]
    return geometry["arcs"] if geometry["type"] == "MultiPolygon" else [geometry["arcs"]]


path = []
for polygon in polygons(topology["objects"]["land"]):
    for indices in polygon:
        points = ring(indices)
        if max(latitude for _, latitude in points) < -60:
            continue
        rounded = []
        for longitude, latitude in points:
            point = (round((longitude + 180) / 0.36, 1), round((90 - latitude) / 0.36, 1))
            if not rounded or point != rounded[-1]:
                rounded.append(point)
        # Where a ring crosses the edge of the map, the pen is lifted.
        text, last = "", None
        for x, y in rounded:
            text += f"{'M' if last is None or abs(x - last) > 500 else 'L'}{x:g} {y:g}"
            last = x
        path.append(text + ("Z" if text.count("M") == 1 else ""))
print("".join(path))
