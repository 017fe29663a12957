# SPDX-License-Identifier: Apache-2.0
"""JPEG pictures. What they hold is what Pillow decodes."""

import io
import struct

import colors
import corpus
import numpy as np
from corpus import RGB8, add, exif, planes, refuse, stored_for
from PIL import Image


def jpeg(pixels=RGB8, **options):
    """The file, and what Pillow makes of it: (h, w, 3)."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **({"quality": 92, "subsampling": 0} | options))
    return file.getvalue(), np.asarray(Image.open(file).convert("RGB"))


def with_markers(data, *bodies):
    """Puts APP segments (marker, body) after the start of a JPEG."""
    segments = b"".join(b"\xff" + bytes([m]) + struct.pack(">H", len(b) + 2) + b for m, b in bodies)
    return data[:2] + segments + data[2:]


def icc_part(number, count, body):
    return 0xE2, b"ICC_PROFILE\0" + bytes([number, count]) + body


def make():
    plain, shown = jpeg()
    add("rgb.jpg", plain, planes(shown))
    for name, options in {
        "420": {"subsampling": 2},
        "422": {"subsampling": 1},
        "progressive": {"progressive": True},
        "restart": {"restart_marker_blocks": 2},
        "keep_rgb": {"keep_rgb": True},
    }.items():
        data, pixels = jpeg(**options)
        add(f"{name}.jpg", data, planes(pixels))
    add("trailing.jpg", plain + b"after the end", planes(shown))
    counts = planes(shown).astype(float)
    p3 = colors.to_srgb(counts, 255, colors.P3, colors.decode_srgb)
    adobe = colors.to_srgb(counts, 255, colors.ADOBE, corpus.adobe_decode)
    add("icc_p3.jpg", with_markers(plain, icc_part(1, 1, corpus.P3_ICC)), p3, tolerance=1)
    add("icc_adobe.jpg", with_markers(plain, icc_part(1, 1, corpus.ADOBE_ICC)), adobe, tolerance=1)
    add("icc_srgb.jpg", with_markers(plain, icc_part(1, 1, corpus.SRGB_TABLE_ICC)), planes(shown))
    add(
        "icc_in_parts.jpg",
        with_markers(
            plain, icc_part(2, 2, corpus.P3_ICC[200:]), icc_part(1, 2, corpus.P3_ICC[:200])
        ),
        p3,
        tolerance=1,
    )
    refuse(
        "icc_part_missing.jpg",
        with_markers(plain, icc_part(1, 2, corpus.P3_ICC[:200])),
        "missing",
        "corrupt",
    )
    refuse(
        "icc_misnumbered.jpg",
        with_markers(plain, icc_part(2, 1, corpus.P3_ICC)),
        "misnumbered",
        "corrupt",
    )
    dcf = b"Exif\0\0" + exif(interoperability=b"R03")
    add("exif_adobe.jpg", with_markers(plain, (0xE1, dcf)), adobe, tolerance=1)
    dcf = b"Exif\0\0" + exif(interoperability=b"R98")
    add("exif_srgb.jpg", with_markers(plain, (0xE1, dcf)), planes(shown))
    small = RGB8[:9, 10:23]
    for turn in range(1, 9):
        data, pixels = jpeg(stored_for(turn, small))
        tagged = with_markers(data, (0xE1, b"Exif\0\0" + exif(turn)))
        upright = {
            5: lambda a: a.transpose(1, 0, 2),
            6: lambda a: np.rot90(a, -1),
            7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
            8: lambda a: np.rot90(a, 1),
        }
        add(
            f"turn{turn}.jpg",
            tagged,
            planes(upright.get(turn, lambda a: stored_for(turn, a))(pixels)),
        )
    grey = io.BytesIO()
    Image.fromarray(RGB8).convert("L").save(grey, "JPEG")
    refuse("grey.jpg", grey.getvalue(), "grey")
    cmyk = io.BytesIO()
    Image.fromarray(RGB8).convert("CMYK").save(cmyk, "JPEG")
    refuse("cmyk.jpg", cmyk.getvalue(), "CMYK")
    refuse("lossless.jpg", plain.replace(b"\xff\xc0", b"\xff\xc3"), "rare kind")
    twelve = bytearray(plain)
    twelve[plain.index(b"\xff\xc0") + 4] = 12
    refuse("12_bits.jpg", bytes(twelve), "rare kind")
