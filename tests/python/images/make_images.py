# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/images: pictures of every kind and, in images.json, what reading them gives.

What is expected is computed here from the pixels that go in, or decoded by Pillow (JPEG), never by
mstpp. Needs numpy, Pillow and tifffile:  python tests/python/images/make_images.py
"""

import corpus
import jpeg_images
import png_images
import tiff_images
from corpus import refuse


def main():
    corpus.OUT.mkdir(parents=True, exist_ok=True)
    for old in corpus.OUT.iterdir():
        old.unlink()
    png_images.make()
    jpeg_images.make()
    tiff_images.make()
    refuse("empty.png", b"", "empty", "corrupt")
    refuse("text.jpg", b"hello, world", "not a JPEG, PNG or TIFF")
    refuse("animation.gif", b"GIF89a\1\0\1\0\0\0\0;", "GIF")
    refuse("array.npy", b"\x93NUMPY\1\0", "NumPy")
    refuse("photo.heic", b"\0\0\0\x18ftypheic", "HEIC")
    corpus.write_list()


if __name__ == "__main__":
    main()
