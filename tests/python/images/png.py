# SPDX-License-Identifier: Apache-2.0
"""A PNG encoder that can write every chunk, also wrong ones, after the specification."""

import struct
import zlib

import numpy as np

ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def chunk(kind, body, crc=None):
    crc = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def pack_rows(pixels, depth):
    """(h, w, samples) to filtered rows; the filter changes with the row."""
    out, previous = b"", None
    if pixels.size == 0:
        return out
    step = max(1, pixels.shape[2] * depth // 8)
    for y, row in enumerate(pixels):
        if depth == 16:
            line = row.astype(">u2").tobytes()
        elif depth == 8:
            line = row.astype(np.uint8).tobytes()
        else:
            bits = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - depth :]
            line = np.packbits(bits.reshape(-1)).tobytes()
        line = np.frombuffer(line, np.uint8)
        left = np.concatenate([np.zeros(step, np.uint8), line[:-step]]) if len(line) > step else 0
        up = previous if previous is not None else np.zeros_like(line)
        kind = y % 3  # none, sub, up
        filtered = line - (0, left, up)[kind]
        out += bytes([kind]) + filtered.astype(np.uint8).tobytes()
        previous = line
    return out


def encode(pixels, depth=8, color=RGB, interlaced=False, before=(), after=()):
    """`pixels` is (h, w, samples); `before` and `after` are chunks around the pixels."""
    height, width = pixels.shape[:2]
    if interlaced:
        rows = b"".join(
            pack_rows(pixels[y::dy, x::dx], depth)
            for x, y, dx, dy in ADAM7
            if pixels[y::dy, x::dx].size
        )
    else:
        rows = pack_rows(pixels, depth)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    data = zlib.compress(rows, 9)
    half = len(data) // 2
    body = [
        chunk(b"IHDR", header),
        *before,
        chunk(b"IDAT", data[:half]),
        chunk(b"IDAT", data[half:]),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*body, *after, chunk(b"IEND", b"")])


def iccp(profile):
    return chunk(b"iCCP", b"test\0\0" + zlib.compress(profile))


def gama(value):
    return chunk(b"gAMA", struct.pack(">I", round(value * 1e5)))


def chrm(space):
    return chunk(b"cHRM", struct.pack(">8I", *(round(v * 1e5) for xy in space for v in xy)))
