# SPDX-License-Identifier: Apache-2.0
"""TIFF pictures."""

import io

import colors
import corpus
import numpy as np
import tifffile
from corpus import HEIGHT, RGB8, RGB16, WIDTH, add, planes, refuse, stored_for
from PIL import Image


def pillow_tiff(image=None, **options):
    file = io.BytesIO()
    (image or Image.fromarray(RGB8)).save(file, "TIFF", **options)
    return file.getvalue()


def tiff(pixels, **options):
    file = io.BytesIO()
    options = {"photometric": "rgb", "metadata": None} | options
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def make():
    p8, p16 = planes(RGB8), planes(RGB16)
    add("rgb8.tif", tiff(RGB8), p8)
    add("rgb8_big.tif", tiff(RGB8, bigtiff=True, rowsperstrip=4), p8)
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"):
        add(f"rgb8_{name.removeprefix('tiff_')}.tif", pillow_tiff(compression=name), p8)
    refuse("lzma.tif", pillow_tiff(compression="lzma"), "compressed by method 34925")
    add("rgb8_predictor.tif", pillow_tiff(compression="tiff_lzw", tiffinfo={317: 2}), p8)
    add("rgb8_tiled.tif", tiff(RGB8, tile=(16, 16)), p8)
    add("rgb8_planar.tif", tiff(p8, planarconfig="separate", rowsperstrip=5), p8)
    add(
        "rgb8_planar_tiled.tif",
        tiff(p8, planarconfig="separate", tile=(16, 32), compression="zlib"),
        p8,
    )
    add("rgb16.tif", tiff(RGB16, compression="zlib"), p16, 65535)
    add("rgb16_big_endian.tif", tiff(RGB16, byteorder=">"), p16, 65535)
    data = pillow_tiff(compression="jpeg", quality=95)
    add("rgb8_jpeg.tif", data, planes(np.asarray(Image.open(io.BytesIO(data)))))
    floats = (RGB16 / 65535.0 * 1.25 - 0.1).astype(np.float32)  # beyond 0..1 on purpose
    add("float.tif", tiff(floats), planes(floats), 1)
    add(
        "float_planar_tiled.tif",
        tiff(planes(floats), planarconfig="separate", tile=(16, 16), byteorder=">"),
        planes(floats),
        1,
    )
    broken = floats.copy()
    broken[4, 5, 1] = np.nan
    refuse("float_nan.tif", tiff(broken), "NaN or infinity at (5, 4)")
    refuse("double.tif", tiff(floats.astype(np.float64)), "64 bits")
    refuse("half.tif", tiff(floats.astype(np.float16)), "16 bits and format 3")
    refuse("int16.tif", tiff(RGB16.astype(np.int16)), "16 bits and format 2")
    refuse("uint32.tif", tiff(RGB16.astype(np.uint32)), "32 bits and format 1")
    rgba = np.concatenate([RGB8, corpus.ALPHA8], 2)
    add("rgba_opaque.tif", tiff(rgba, extrasamples=["unassalpha"]), p8)
    add(
        "rgba_planar_opaque.tif",
        tiff(planes(rgba), planarconfig="separate", extrasamples=["assocalpha"]),
        p8,
    )
    rgba[-1, -1, 3] = 254
    refuse("rgba_transparent.tif", tiff(rgba, extrasamples=["unassalpha"]), "transparent")
    refuse(
        "rgba_planar_transparent.tif",
        tiff(planes(rgba), planarconfig="separate", extrasamples=["assocalpha"]),
        "transparent",
    )
    refuse("extra_band.tif", tiff(rgba, extrasamples=["unspecified"]), "transparent")
    palette = np.random.default_rng(4).integers(0, 256, (3, 256), dtype=np.uint16)
    index = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    for name, widened in (("", palette * 257), ("_shifted", palette * 256), ("_8bit", palette)):
        add(
            f"palette{name}.tif",
            tiff(index, photometric="palette", colormap=widened),
            palette[:, index],
        )
    add(
        "palette_tiled.tif",
        tiff(index, photometric="palette", colormap=palette * 257, tile=(16, 16)),
        palette[:, index],
    )
    refuse("grey.tif", tiff(index, photometric="minisblack"), "grey")
    refuse("white_is_zero.tif", tiff(index, photometric="miniswhite"), "grey")
    refuse("cmyk.tif", pillow_tiff(Image.fromarray(RGB8).convert("CMYK")), "CMYK")
    refuse("lab.tif", pillow_tiff(Image.new("LAB", (9, 9))), "colours of kind 8")
    refuse("ycbcr.tif", pillow_tiff(Image.fromarray(RGB8).convert("YCbCr")), "YCbCr")
    for turn in range(1, 9):
        tag = [(274, "H", 1, turn, True)]
        add(f"turn{turn}.tif", tiff(stored_for(turn, RGB8), extratags=tag), p8)
    p3 = colors.to_srgb(p16, 65535, colors.P3, colors.decode_srgb)
    add(
        "icc_p3_16.tif",
        tiff(RGB16, iccprofile=corpus.P3_ICC),
        p3,
        65535,
        tolerance=corpus.ICC_STEPS_16,
    )
    p3 = colors.to_srgb(planes(floats), 1, colors.P3, colors.decode_srgb)
    # Values reach 1.15, so light 1.4, and the profile's rounding grows with the light.
    steps = 1.4 * corpus.ICC_STEPS_16 / 65535
    add("icc_p3_float.tif", tiff(floats, iccprofile=corpus.P3_ICC), p3, 1, tolerance=steps)
    add("icc_srgb.tif", tiff(RGB8, iccprofile=corpus.SRGB_TABLE_ICC), p8)
    add("thumbnail_after.tif", tiff_pages((RGB8, 0), (RGB8[::4, ::4], 1)), p8)
    refuse("two_pages.tif", tiff_pages((RGB8, 0), (RGB8, 0)), "several pictures")
    refuse("thumbnail_first.tif", tiff_pages((RGB8[::4, ::4], 1), (RGB8, 0)), "thumbnail")


def tiff_pages(*pages):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for pixels, kind in pages:
            writer.write(pixels, photometric="rgb", subfiletype=kind, metadata=None)
    return file.getvalue()
