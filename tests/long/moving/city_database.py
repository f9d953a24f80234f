#!/usr/bin/env python3
"""Writes a small city database in MaxMind's format (https://maxmind.github.io/MaxMind-DB/), for servers that need one.

city_database.py FILE    The networks are those of PLACES; everything else has no place.
"""
import ipaddress
import struct
import sys

# network: continent, country, latitude, longitude
PLACES = {
    "81.0.0.0/16": ("EU", "DE", 50.1, 8.7),
    "82.0.0.0/16": ("EU", "GB", 51.5, -0.1),
    "83.0.0.0/16": ("EU", "CH", 47.4, 8.5),
    "12.0.0.0/16": ("NA", "US", 40.7, -74.0),
    "13.0.0.0/16": ("NA", "US", 37.8, -122.4),
    "14.0.0.0/16": ("NA", "CA", 45.5, -73.6),
    "101.0.0.0/16": ("AS", "SG", 1.3, 103.8),
    "102.0.0.0/16": ("AS", "JP", 35.7, 139.7),
    "103.0.0.0/16": ("OC", "AU", -33.9, 151.2),
    "177.0.0.0/16": ("SA", "BR", -23.5, -46.6),
    # Where the regions' own addresses stand: PowerDNS looks them up.
    "192.0.2.0/24": ("NA", "US", 38.95, -77.45),
    "198.51.100.0/24": ("EU", "DE", 50.11, 8.68),
    "203.0.113.0/24": ("AS", "SG", 1.35, 103.82),
    "2a01:4f8::/32": ("EU", "DE", 50.1, 8.7),
}


def control(kind, size):
    """The byte or bytes before a value: its type and its size."""
    assert size < 29 and 0 < kind < 16
    return bytes([kind << 5 | size]) if kind < 8 else bytes([size, kind - 7])


def encode(value):
    if isinstance(value, dict):
        return control(7, len(value)) + b"".join(encode(k) + encode(v) for k, v in value.items())
    if isinstance(value, list):
        return control(11, len(value)) + b"".join(map(encode, value))
    if isinstance(value, str):
        return control(2, len(value.encode())) + value.encode()
    if isinstance(value, float):
        return control(3, 8) + struct.pack(">d", value)
    kind, size, number = value
    return control(kind, size) + number.to_bytes(size, "big")


def u16(number):
    return (5, 2, number)


def u32(number):
    return (6, 4, number)


def main(path):
    nodes, data = [[None, None]], bytearray()
    for text, (continent, country, latitude, longitude) in PLACES.items():
        network = ipaddress.ip_network(text)
        # IPv4 stands at ::/96 of the IPv6 tree.
        bits = int(network.network_address)
        length = network.prefixlen + (96 if network.version == 4 else 0)
        at = 0
        for depth in range(length):
            bit = bits >> (127 - depth) & 1
            if depth == length - 1:
                nodes[at][bit] = ("data", len(data))
            else:
                if nodes[at][bit] is None:
                    nodes.append([None, None])
                    nodes[at][bit] = ("node", len(nodes) - 1)
                at = nodes[at][bit][1]
        data += encode({
            "continent": {"code": continent, "names": {"en": continent}},
            "country": {"iso_code": country, "names": {"en": country}},
            "city": {"names": {"en": "Somewhere"}},
            "location": {"accuracy_radius": u16(20), "latitude": latitude, "longitude": longitude, "time_zone": "UTC"},
        })
    count = len(nodes)
    where = {None: lambda _: count, "node": lambda n: n, "data": lambda n: count + 16 + n}
    tree = b"".join(struct.pack(">I", where[r[0] if r else None](r[1] if r else 0)) for node in nodes for r in node)
    about = encode({
        "binary_format_major_version": u16(2),
        "binary_format_minor_version": u16(0),
        "build_epoch": (9, 8, 1_700_000_000),
        "database_type": "GeoLite2-City",
        "description": {"en": "Some networks"},
        "ip_version": u16(6),
        "languages": ["en"],
        "node_count": u32(count),
        "record_size": u16(32),
    })
    with open(path, "wb") as out:
        out.write(tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + about)


if __name__ == "__main__":
    main(sys.argv[1])
