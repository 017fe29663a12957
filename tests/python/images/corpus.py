# SPDX-License-Identifier: Apache-2.0
"""The pictures that go in, and the list of files and of what reading them gives."""

import json
import pathlib
import struct

import colors
import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[2] / "data" / "images"
WIDTH, HEIGHT = 23, 18  # more than one tile of 16 x 16, and no multiple of 8

# An ICC profile's nine numbers are rounded to 2^-16; sRGB's curve has a slope of 12.92 at black.
ICC_STEPS_16 = 20  # counts of 16 bits: 3 * 2^-17 * 12.92 * 65535, rounded up

ENTRIES = []
EXPECTED = {}  # name of a .raw file by its content


def base(white):
    """A picture with every sample from 0 to white somewhere, smooth and noisy parts: (h, w, 3)."""
    random = np.random.default_rng(31)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    smooth = np.stack([x / (WIDTH - 1), y / (HEIGHT - 1), (x + y) % 19 / 18], 2)
    noise = random.random((HEIGHT, WIDTH, 3))
    mixed = np.where((x < WIDTH // 2)[..., None], smooth, noise)
    mixed[0, 0], mixed[0, 1] = 0, 1
    return np.rint(mixed * white).astype(np.uint8 if white == 255 else np.uint16)


RGB8, RGB16 = base(255), base(65535)
ALPHA8 = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
P3_ICC = colors.profile(colors.to_d50(colors.P3), colors.srgb_curve_tag())
ADOBE_ICC = colors.profile(colors.to_d50(colors.ADOBE), colors.gamma_tag(563 / 256))
SRGB_ICC = colors.profile(colors.to_d50(colors.SRGB), colors.srgb_curve_tag())
# As the most common sRGB profile has it: a table, and primaries rounded otherwise.
SRGB_TABLE_ICC = colors.profile(
    [[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]],
    colors.srgb_curve_tag(1024),
)
CMYK_ICC = colors.profile(colors.to_d50(colors.SRGB), colors.gamma_tag(2.2), space=b"CMYK")


def adobe_decode(v):
    return v ** (563 / 256)


def planes(pixels):
    return np.moveaxis(np.asarray(pixels), 2, 0)


def add(name, data, expected=None, white=255, tolerance=0, error=None, says=None):
    """One file: `expected` (3, h, w), or the error's code and a part of its message."""
    (OUT / name).write_bytes(data)
    entry = {"file": name}
    if error:
        entry |= {"error": error, "says": says}
    else:
        array = np.ascontiguousarray(expected)
        array = array.astype("<f4" if white == 1 else "<u2" if white == 65535 else "u1")
        key = array.tobytes(), array.shape
        if key not in EXPECTED:
            EXPECTED[key] = f"expected{len(EXPECTED):02}.raw"
            (OUT / EXPECTED[key]).write_bytes(key[0])
        entry |= {
            "height": array.shape[1],
            "width": array.shape[2],
            "white": white,
            "expected": EXPECTED[key],
            "tolerance": tolerance,
        }
    ENTRIES.append(entry)


def refuse(name, data, says, error="unsupported"):
    add(name, data, error=error, says=says)


def exif(orientation=None, interoperability=None):
    """EXIF data, little-endian: IFD0 with the turn, and the chain of IFDs to interoperability."""
    tags = [] if orientation is None else [(0x0112, 3, 1, struct.pack("<HH", orientation, 0))]
    if interoperability is None:
        return b"II*\0" + struct.pack("<I", 8) + ifd(tags)
    start = 8 + 2 + 12 * (len(tags) + 1) + 4
    tags.append((0x8769, 4, 1, struct.pack("<I", start)))
    inner = ifd([(0xA005, 4, 1, struct.pack("<I", start + 18))])
    index = ifd([(0x0001, 2, 4, interoperability + b"\0")])
    return b"II*\0" + struct.pack("<I", 8) + ifd(tags) + inner + index


def ifd(tags):
    body = b"".join(
        struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in tags
    )
    return struct.pack("<H", len(tags)) + body + struct.pack("<I", 0)


def stored_for(orientation, upright):
    """What a camera stores so that `orientation` turns it upright (h, w, 3)."""
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    return np.ascontiguousarray(stored[orientation](upright))


def write_list():
    text = ",\n".join(json.dumps(entry) for entry in ENTRIES)
    (OUT / "images.json").write_text(f"[\n{text}\n]\n")
