"""Blocks of 4 x 4 pixels between the image, where a pixel's colours lie side by side, and vectors.

A vector holds two rows of a block in one colour: lanes 0 to 3 are the upper row. A row's twelve colour values are
moved as eight and four.
"""

from __future__ import annotations

from talker.jit.compile import inlined
from talker.jit.simd import LANES, load, load_halves, shuffle, store, store_halves
from talker.render.cpu.layout import BLOCK

_ = 0  # a lane whose value the next shuffle replaces

# Joining: red and green first, then blue into the gaps. Rows are r0 g0 b0 r1 g1 b1 r2 g2 | b2 r3 g3 b3.
_upper_rg, _upper_b = shuffle([0, 8, _, 1, 9, _, 2, 10]), shuffle([0, 1, 8, 3, 4, 9, 6, 7])
_lower_rg, _lower_b = shuffle([4, 12, _, 5, 13, _, 6, 14]), shuffle([0, 1, 12, 3, 4, 13, 6, 7])
_ends_rg, _ends_b = shuffle([_, 3, 11, _, _, 7, 15, _]), shuffle([10, 1, 2, 11, 14, 5, 6, 15])

# Splitting: from the two beginnings (eight values each), then the missing pixels from the two ends.
_begin_r, _end_r = shuffle([0, 3, 6, _, 8, 11, 14, _]), shuffle([0, 1, 2, 9, 4, 5, 6, 13])
_begin_g, _end_g = shuffle([1, 4, 7, _, 9, 12, 15, _]), shuffle([0, 1, 2, 10, 4, 5, 6, 14])
_begin_b, _end_b = shuffle([2, 5, _, _, 10, 13, _, _]), shuffle([0, 1, 8, 11, 4, 5, 12, 15])


@inlined
def write_two_rows(rgb, alpha, pixel, width, red, green, blue, opacity):
    """Write two rows of four pixels, the upper beginning at number ``pixel`` of the image."""
    upper, lower = pixel * 3, (pixel + width) * 3
    store(rgb, upper, _upper_b(_upper_rg(red, green), blue))
    store(rgb, lower, _lower_b(_lower_rg(red, green), blue))
    store_halves(rgb, upper + LANES, lower + LANES, _ends_b(_ends_rg(red, green), blue))
    store_halves(alpha, pixel, pixel + width, opacity)


@inlined
def read_two_rows(rgb, pixel, width):
    """Red, green and blue of two rows of four pixels, the upper beginning at number ``pixel`` of the image."""
    upper, lower = pixel * 3, (pixel + width) * 3
    a, b = load(rgb, upper), load(rgb, lower)
    ends = load_halves(rgb, upper + LANES, lower + LANES)
    return _end_r(_begin_r(a, b), ends), _end_g(_begin_g(a, b), ends), _end_b(_begin_b(a, b), ends)


@inlined
def fits(x, y, width, height):
    """Whether all pixels of the block at ``x``, ``y`` lie in the image."""
    return x + BLOCK <= width and y + BLOCK <= height
