# SPDX-License-Identifier: Apache-2.0
"""RGB colour spaces as ICC profiles, and their conversion to sRGB, from the definitions alone."""

import struct

import numpy as np

SRGB = ((0.3127, 0.3290), (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE = ((0.3127, 0.3290), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3 = ((0.3127, 0.3290), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def xyz(xy):
    x, y = xy
    return np.array([x / y, 1.0, (1 - x - y) / y])


def to_d50(space):
    """Linear RGB to XYZ as ICC has it: Bradford-adapted to D50."""
    white, *primaries = space
    matrix = np.stack([xyz(p) for p in primaries], 1)
    matrix = matrix * np.linalg.solve(matrix, xyz(white))
    cones = np.diag((BRADFORD @ D50) / (BRADFORD @ xyz(white)))
    return np.linalg.inv(BRADFORD) @ cones @ BRADFORD @ matrix


def decode_srgb(v):
    return np.where(v <= 0.04045, v / 12.92, ((np.maximum(v, 0.04045) + 0.055) / 1.055) ** 2.4)


def encode_srgb(v):
    return np.where(
        v <= 0.0031308, 12.92 * v, 1.055 * np.maximum(v, 0.0031308) ** (1 / 2.4) - 0.055
    )


def to_srgb(counts, white, space, decode):
    """(3, h, w) counts of a colour space to sRGB's: rounded and clipped unless they are floats."""
    matrix = np.linalg.solve(to_d50(SRGB), to_d50(space))
    encoded = encode_srgb(np.einsum("ij,jhw->ihw", matrix, decode(counts / white)))
    return encoded if white == 1 else np.rint(np.clip(encoded, 0, 1) * white)


def s15f16(v):
    return struct.pack(">i", round(v * 65536))


def xyz_tag(v):
    return b"XYZ \0\0\0\0" + b"".join(s15f16(x) for x in v)


def gamma_tag(gamma):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def srgb_curve_tag(points=None):
    """sRGB's curve: ICC's parametric type 3, or a table of so many points."""
    if points is None:
        numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        return b"para\0\0\0\0\0\3\0\0" + b"".join(s15f16(v) for v in numbers)
    table = np.rint(decode_srgb(np.linspace(0, 1, points)) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", points) + table.tobytes()


def profile(columns, curve, space=b"RGB ", kind=b"mntr"):
    """A matrix profile: `columns` is linear RGB to XYZ at D50, `curve` the tag of all channels."""
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 79
    tags = [(b"desc", text), (b"cprt", b"text\0\0\0\0CC0\0"), (b"wtpt", xyz_tag(D50))]
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), np.transpose(columns)):
        tags.append((name, xyz_tag(column)))
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags:
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = start + len(body)
    head = struct.pack(">I4s4s4s4s4s", size, b"lcms", b"\2\x40\0\0", kind, space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    head += b"".join(s15f16(v) for v in D50)
    return head.ljust(128, b"\0") + table + body
