# SPDX-License-Identifier: Apache-2.0
"""PNG pictures."""

import struct

import colors
import corpus
import numpy as np
import png
from corpus import HEIGHT, RGB8, RGB16, WIDTH, add, exif, planes, refuse, stored_for


def make_pixels():
    p8, p16 = planes(RGB8), planes(RGB16)
    add("rgb8.png", png.encode(RGB8), p8)
    add("rgb16.png", png.encode(RGB16, 16), p16, 65535)
    add("rgb8_interlaced.png", png.encode(RGB8, interlaced=True), p8)
    add("rgb16_interlaced.png", png.encode(RGB16, 16, interlaced=True), p16, 65535)
    add("1x1.png", png.encode(RGB8[5:6, 5:6]), planes(RGB8[5:6, 5:6]))
    for depth in (1, 2, 4, 8):
        random = np.random.default_rng(depth)
        palette = random.integers(0, 256, (2**depth, 3), dtype=np.uint8)
        index = random.integers(0, 2**depth, (HEIGHT, WIDTH, 1))
        index[0, 0] = 0
        plte = png.chunk(b"PLTE", palette.tobytes())
        shown = planes(palette[index[..., 0]])
        write = lambda *chunks: png.encode(index, depth, png.PALETTE, before=(plte, *chunks))
        add(f"palette{depth}.png", write(), shown)
        if depth == 8:
            opaque, unused = bytes([255] * 256), bytes([255] * 255 + [0])
            add("palette_opaque.png", write(png.chunk(b"tRNS", opaque)), shown)
            refuse("palette_transparent.png", write(png.chunk(b"tRNS", b"\x80")), "transparent")
            index = np.minimum(index, 254)
            add(
                "palette_transparent_unused.png",
                write(png.chunk(b"tRNS", unused)),
                planes(palette[index[..., 0]]),
            )
    rgba = np.concatenate([RGB8, corpus.ALPHA8], 2)
    add("rgba_opaque.png", png.encode(rgba, color=png.RGBA), p8)
    rgba16 = np.concatenate([RGB16, corpus.ALPHA8.astype(np.uint16) * 257], 2)
    add("rgba16_opaque.png", png.encode(rgba16, 16, png.RGBA), p16, 65535)
    rgba[-1, -1, 3] = 254
    refuse("rgba_transparent.png", png.encode(rgba, color=png.RGBA), "transparent")
    rgba16[3, 4, 3] = 65534
    refuse("rgba16_transparent.png", png.encode(rgba16, 16, png.RGBA), "transparent")
    key = lambda rgb: (png.chunk(b"tRNS", struct.pack(">3H", *map(int, rgb))),)
    add("rgb8_key_unused.png", png.encode(RGB8, before=key((1, 2, 3))), p8)
    refuse("rgb8_key_used.png", png.encode(RGB8, before=key(RGB8[7, 20])), "transparent")
    # Differs from every pixel in the low byte of one sample only.
    add(
        "rgb16_key_unused.png",
        png.encode(RGB16, 16, before=key(RGB16[7, 20] ^ [0, 0, 1])),
        p16,
        65535,
    )
    refuse("rgb16_key_used.png", png.encode(RGB16, 16, before=key(RGB16[7, 20])), "transparent")
    refuse("grey8.png", png.encode(RGB8[..., :1], color=png.GREY), "grey")
    refuse("grey16.png", png.encode(RGB16[..., :1], 16, png.GREY), "grey")
    refuse(
        "grey_alpha.png",
        png.encode(np.concatenate([RGB8[..., :1], corpus.ALPHA8], 2), color=png.GREY_ALPHA),
        "grey",
    )


def make_colors():
    p8, p16 = planes(RGB8), planes(RGB16)
    srgb = png.chunk(b"sRGB", b"\0")
    write = lambda *chunks: png.encode(RGB8, before=chunks)
    p3 = colors.to_srgb(p8, 255, colors.P3, colors.decode_srgb)
    adobe = colors.to_srgb(p8, 255, colors.ADOBE, corpus.adobe_decode)
    linear = colors.to_srgb(p8, 255, colors.SRGB, lambda v: v)
    add("srgb_chunk.png", write(srgb, png.gama(1.0)), p8)
    add("icc_srgb.png", write(png.iccp(corpus.SRGB_ICC)), p8)
    add("icc_srgb_table.png", write(png.iccp(corpus.SRGB_TABLE_ICC)), p8)
    add("icc_p3.png", write(png.iccp(corpus.P3_ICC)), p3, tolerance=1)
    add("icc_adobe.png", write(png.iccp(corpus.ADOBE_ICC)), adobe, tolerance=1)
    add(
        "icc_p3_16.png",
        png.encode(RGB16, 16, before=[png.iccp(corpus.P3_ICC)]),
        colors.to_srgb(p16, 65535, colors.P3, colors.decode_srgb),
        65535,
        tolerance=corpus.ICC_STEPS_16,
    )
    add("gamma_usual.png", write(png.gama(1 / 2.2), png.chrm(colors.SRGB)), p8)
    add("gamma_linear.png", write(png.gama(1.0)), linear, tolerance=1)
    add("gamma_adobe.png", write(png.gama(256 / 563), png.chrm(colors.ADOBE)), adobe, tolerance=1)
    add("primaries_p3.png", write(png.chrm(colors.P3)), p3, tolerance=1)
    add("cicp_srgb.png", write(png.chunk(b"cICP", bytes([1, 13, 0, 1])), png.gama(1.0)), p8)
    refuse("cicp_p3.png", write(png.chunk(b"cICP", bytes([12, 13, 0, 1]))), "cICP")
    refuse("icc_cmyk.png", write(png.iccp(corpus.CMYK_ICC)), "profile does not describe RGB")
    refuse(
        "icc_no_profile.png", write(png.iccp(b"no profile" * 20)), "profile is broken", "corrupt"
    )
    refuse("icc_not_deflated.png", write(png.chunk(b"iCCP", b"test\0\0junk")), "iCCP", "corrupt")
    refuse("icc_bad_crc.png", write(png.chunk(b"iCCP", b"test\0\0junk", crc=0)), "", "corrupt")
    refuse("gamma_zero.png", write(png.chunk(b"gAMA", b"\0\0\0\0")), "gAMA", "corrupt")
    refuse("primaries_none.png", write(png.chunk(b"cHRM", b"\0" * 32)), "", "corrupt")
    for turn in range(1, 9):
        data = png.chunk(b"eXIf", exif(turn))
        add(f"turn{turn}.png", png.encode(stored_for(turn, RGB8), before=[data]), p8)
    add(
        "turn_after_pixels.png",
        png.encode(stored_for(6, RGB8), after=[png.chunk(b"eXIf", exif(6))]),
        p8,
    )
    refuse("exif_broken.png", write(png.chunk(b"eXIf", b"junk")), "eXIf", "corrupt")


def make():
    make_pixels()
    make_colors()
