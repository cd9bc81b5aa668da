"""The walk over one tile that blending and its gradient share.

A tile is 8 x 8 blocks of 4 x 4 pixels. Its entries are taken in chunks; for each entry the blocks its ellipse
touches are found exactly (one 64-bit word), which gives every block a short list of its own. Blocks that nothing
can change any more are dropped from the word.
"""

# ruff: noqa: PLR0913, PLR0917 - kernels take flat arrays, not objects

from __future__ import annotations

import numpy as np

from talker.jit.bits import lowest_bit, span_bits
from talker.jit.compile import inlined
from talker.jit.simd import (
    LANES,
    broadcast,
    ceil,
    floor,
    get,
    keep,
    lanes,
    load,
    maximum,
    minimum,
    prefetch,
    put,
    spread,
    sqrt,
    store,
)
from talker.jit.vector_math import exp2
from talker.render import constants
from talker.render.cpu.layout import (
    BLOCK,
    BLOCK_PIXELS,
    CHUNK,
    DECAY,
    EXP_XX,
    EXP_XY,
    EXP_YY,
    HALF_WIDTH_2,
    LOG_OPACITY,
    MIN_EXPONENT,
    N_BLOCKS,
    REACH_Y,
    RECORD,
    SLACK,
    SLOPE,
    TILE,
    WIDEST_Y,
    X,
    Y,
)

LIST = CHUNK + 8
"""Room of a block's list: a chunk, and one more so that entries can be taken in pairs."""

_BLOCK_ROWS = lanes([BLOCK * row for row in range(LANES)])
_LANE_X = lanes([0, 1, 2, 3, 0, 1, 2, 3])
_LANE_Y = lanes([0, 0, 0, 0, 1, 1, 1, 1])
_ZEROS = lanes([0] * LANES)
_HALF = np.float32(0.5)
_AHEAD = 16
_SLACK = float(SLACK)
_LAST_BLOCK = float(LANES - 1)
_INVERSE_BLOCK = 1 / BLOCK
_MAX_ALPHA = constants.MAX_ALPHA


@inlined
def touched_blocks(records, at, left, top):
    """Which blocks of the tile the ellipse of the record at ``at`` meets, bit 8 * row + column.

    The eight rows of blocks are the eight lanes: in each, the ellipse's extreme x over the row's band of y is
    where the band comes closest to the ellipse's own extreme (WIDEST_Y), and there the row equation gives it.
    """
    y = get(records, at + Y) - np.float32(top) - _HALF
    reach = broadcast(records, at + REACH_Y)
    band_top = _BLOCK_ROWS() - spread(y)
    low, high = maximum(band_top, -reach), minimum(band_top + (BLOCK - 1.0), reach)
    widest = broadcast(records, at + WIDEST_Y)
    dy_right, dy_left = minimum(maximum(widest, low), high), minimum(maximum(-widest, low), high)
    half2, decay = broadcast(records, at + HALF_WIDTH_2), broadcast(records, at + DECAY)
    slope = broadcast(records, at + SLOPE)
    x = spread(get(records, at + X) - np.float32(left) - _HALF)
    half_right = sqrt(maximum(half2 - decay * dy_right * dy_right, _ZEROS()))
    half_left = sqrt(maximum(half2 - decay * dy_left * dy_left, _ZEROS()))
    first_pixel = ceil(slope * dy_left + x - half_left - _SLACK)
    last_pixel = floor(slope * dy_right + x + half_right + _SLACK)
    first, last = floor(first_pixel * _INVERSE_BLOCK), floor(last_pixel * _INVERSE_BLOCK)
    met = (low <= high) & (first_pixel <= last_pixel) & (last >= 0.0) & (first <= _LAST_BLOCK)
    return span_bits(maximum(first, _ZEROS()), minimum(last, _ZEROS() + _LAST_BLOCK), met)


@inlined
def take_chunk(records, entries, first, n, left, top, alive, local, masks):
    """Copy the records of ``n`` entries next to each other and find their blocks; returns all blocks touched."""
    used = np.uint64(0)
    for k in range(n):
        ahead = k + _AHEAD if k + _AHEAD < n else n - 1
        prefetch(records, np.int64(get(entries, first + ahead)) * RECORD)
        at = np.int64(get(entries, first + k)) * RECORD
        mask = touched_blocks(records, at, left, top) & alive
        put(masks, k, mask)
        used |= mask
        store(local, k * RECORD, load(records, at))
        store(local, k * RECORD + LANES, load(records, at + LANES))
    return used


@inlined
def list_blocks(n, masks, lists, lengths):
    """Write number k of the chunk into the list of every block it touches, in order.

    A list ends with the number CHUNK, the record of which is invisible.
    """
    for block in range(N_BLOCKS):
        put(lengths, block, np.uint8(0))
    for k in range(n):
        mask = get(masks, k)
        while mask != np.uint64(0):
            block = lowest_bit(mask)
            mask &= mask - np.uint64(1)
            length = np.int64(get(lengths, block))
            put(lists, block * LIST + length, np.uint8(k))
            put(lengths, block, np.uint8(length + 1))


@inlined
def add_invisible_record(local):
    """The record that list ends point to: alpha far below the threshold everywhere."""
    for j in range(RECORD):
        local[CHUNK * RECORD + j] = np.float32(0)
    local[CHUNK * RECORD + LOG_OPACITY] = np.float32(-1e6)


@inlined
def blocks_inside(left, top, width, height):
    """The blocks of a tile that hold at least one pixel of the image, as bits."""
    bits = np.uint64(0)
    for block in range(N_BLOCKS):
        if left + (block % LANES) * BLOCK < width and top + (block // LANES) * BLOCK < height:
            bits |= np.uint64(1) << np.uint64(block)
    return bits


@inlined
def block_pixels(block, left, top):
    """Coordinates x, y of the centres of a block's first two rows; the other two lie 2 lower."""
    x = left + (block % LANES) * BLOCK
    y = top + (block // LANES) * BLOCK
    return spread(np.float32(x) + _HALF) + _LANE_X(), spread(np.float32(y) + _HALF) + _LANE_Y()


@inlined
def _exponent(local, at, dx, dy):
    along_x = broadcast(local, at + EXP_XX) * dx + broadcast(local, at + EXP_XY) * dy
    along_y = broadcast(local, at + EXP_YY) * dy * dy + broadcast(local, at + LOG_OPACITY)
    return along_x * dx + along_y


@inlined
def _alpha(exponent):
    return keep(exponent >= MIN_EXPONENT, minimum(exp2(exponent), _ZEROS() + _MAX_ALPHA))


@inlined
def alphas_of_pair(local, at, at2, x, y, alphas, target):
    """Alpha of two records at the 16 pixels of a block, zero where below MIN_ALPHA.

    Nothing here depends on what was blended before, and two records are four independent chains: that hides the
    latency of the exponential, which bounds a loop that blends as it goes.
    """
    dx, dy = x - broadcast(local, at + X), y - broadcast(local, at + Y)
    dx2, dy2 = x - broadcast(local, at2 + X), y - broadcast(local, at2 + Y)
    a, b = _exponent(local, at, dx, dy), _exponent(local, at, dx, dy + 2.0)
    c, d = _exponent(local, at2, dx2, dy2), _exponent(local, at2, dx2, dy2 + 2.0)
    store(alphas, target, _alpha(a))
    store(alphas, target + LANES, _alpha(b))
    store(alphas, target + BLOCK_PIXELS, _alpha(c))
    store(alphas, target + BLOCK_PIXELS + LANES, _alpha(d))


@inlined
def fill_alphas(local, lists, begin, start, stop, x, y, alphas):
    """Alphas of entries ``start`` to ``stop`` of the block list at ``begin``; may do one more than asked."""
    j = start
    while j < stop:
        at = np.int64(get(lists, begin + j)) * RECORD
        at2 = np.int64(get(lists, begin + j + 1)) * RECORD
        alphas_of_pair(local, at, at2, x, y, alphas, (j - start) * BLOCK_PIXELS)
        j += 2


@inlined
def n_tiles_of(width, height):
    """Tiles in a row, and in all."""
    tiles_x = (width + TILE - 1) // TILE
    return tiles_x, tiles_x * ((height + TILE - 1) // TILE)
