"""Steps 5 and 6: the gradient of the picture becomes the gradient of each projected Gaussian.

The tiles are walked front to back, exactly as forward. With w_i = T_i alpha_i the weight of entry i, G the gradient
of the colour C and g that of the final alpha A = 1 - T_end of one pixel::

    S_i = sum_{j > i} w_j G.c_j - g T_end        what lies behind entry i, seen through G
    u_i = dL/d(ln alpha_i) = w_i G.c_i - alpha_i / (1 - alpha_i) S_i

S starts as G.C - g (1 - A) and is decremented on the way, so forward has nothing to store for this but its result.
Because alpha is an exponential, all of an entry's gradients are moments of u over its pixels, with d the pixel
minus the mean: sums of u, u d and u d d^T for opacity, mean and conic, and of w G for the colour.
Each entry of each tile has a row of its own for these nine sums: no atomics, and a fixed order of summation.
"""

# ruff: noqa: PLR0913, PLR0917 - kernels take flat arrays, not objects

from __future__ import annotations

import numpy as np

from talker.jit.bits import any_lane, lowest_bit
from talker.jit.compile import inlined, kernel
from talker.jit.simd import (
    LANES,
    atomic_add,
    broadcast,
    get,
    keep,
    lanes,
    load,
    load_halves,
    maximum,
    prefetch,
    put,
    store,
)
from talker.jit.vector_math import sum_each, sum_lanes
from talker.render import constants
from talker.render.cpu.layout import (
    BATCH,
    BLOCK,
    BLOCK_PIXELS,
    BLUE,
    CHUNK,
    GREEN,
    N_BLOCKS,
    RECORD,
    RED,
    ROW,
    SUM_BLUE,
    SUM_GREEN,
    SUM_RED,
    SUM_U,
    SUM_UX,
    SUM_UXX,
    SUM_UXY,
    SUM_UY,
    SUM_UYY,
    TILE,
    X,
    Y,
)
from talker.render.cpu.pixels import fits, read_two_rows
from talker.render.cpu.tile import (
    LIST,
    add_invisible_record,
    block_pixels,
    blocks_inside,
    fill_alphas,
    list_blocks,
    n_tiles_of,
    take_chunk,
)

STATE = 5 * BLOCK_PIXELS
"""Floats per block between chunks: T, S, and the gradient of red, green, blue, of 16 pixels each."""

_MIN_T, _MAX_ALPHA = constants.MIN_TRANSMITTANCE, constants.MAX_ALPHA
_AHEAD = 12  # rows fetched ahead: one Gaussian's lie in different tiles
_ONES, _ZEROS = lanes([1] * LANES), lanes([0] * LANES)


@inlined
def _start_block(state, at, x0, y0, width, rgb, alpha, grad_rgb, grad_alpha):
    for half in range(2):
        pixel, here = (y0 + 2 * half) * width + x0, at + half * LANES
        r, g, b = read_two_rows(rgb, pixel, width)
        dr, dg, db = read_two_rows(grad_rgb, pixel, width)
        t_end = 1.0 - load_halves(alpha, pixel, pixel + width)
        store(state, here, _ONES())
        store(
            state, here + 16, dr * r + dg * g + db * b - load_halves(grad_alpha, pixel, pixel + width) * t_end
        )
        store(state, here + 32, dr)
        store(state, here + 48, dg)
        store(state, here + 64, db)


@inlined
def _start_pixel(state, at, pixel, rgb, alpha, grad_rgb, grad_alpha):
    red, green, blue = get(grad_rgb, pixel * 3), get(grad_rgb, pixel * 3 + 1), get(grad_rgb, pixel * 3 + 2)
    behind = red * get(rgb, pixel * 3) + green * get(rgb, pixel * 3 + 1) + blue * get(rgb, pixel * 3 + 2)
    put(state, at + 16, behind - get(grad_alpha, pixel) * (np.float32(1) - get(alpha, pixel)))
    put(state, at + 32, red)
    put(state, at + 48, green)
    put(state, at + 64, blue)


@inlined
def _start(state, left, top, width, height, rgb, alpha, grad_rgb, grad_alpha):
    """Fill the state of a tile; pixels outside of the image get no gradient."""
    for block in range(N_BLOCKS):
        x0, y0, at = left + (block % LANES) * BLOCK, top + (block // LANES) * BLOCK, block * STATE
        if fits(x0, y0, width, height):
            _start_block(state, at, x0, y0, width, rgb, alpha, grad_rgb, grad_alpha)
            continue
        for p in range(STATE):
            put(state, at + p, np.float32(1 if p < BLOCK_PIXELS else 0))
        for y in range(y0, min(y0 + BLOCK, height)):
            for x in range(x0, min(x0 + BLOCK, width)):
                here = at + (y - y0) * BLOCK + (x - x0)
                _start_pixel(state, here, y * width + x, rgb, alpha, grad_rgb, grad_alpha)


@inlined
def _differentiate_batch(local, lists, begin, start, stop, x, y, alphas, state, at, sums, row0):
    """Add to the sums of entries ``start`` to ``stop`` of a block's list; true if any pixel is still open.

    ``row0`` is where the rows of the chunk begin in ``sums``.
    """
    t0, t1 = load(state, at), load(state, at + 8)
    s0, s1 = load(state, at + 16), load(state, at + 24)
    for j in range(start, stop):
        k = np.int64(get(lists, begin + j))
        record, alpha, row = k * RECORD, (j - start) * BLOCK_PIXELS, row0 + k * ROW
        a0, a1 = load(alphas, alpha), load(alphas, alpha + LANES)
        odds0, odds1 = a0 / (1.0 - a0), a1 / (1.0 - a1)
        w0, w1 = a0 * t0, a1 * t1
        t0, t1 = t0 - w0, t1 - w1
        open0, open1 = t0 > _MIN_T, t1 > _MIN_T
        w0, w1 = keep(open0, w0), keep(open1, w1)
        # The gradients of the 16 pixels are read again each time: there are not enough registers to hold them.
        red0, red1 = load(state, at + 32), load(state, at + 40)
        green0, green1 = load(state, at + 48), load(state, at + 56)
        blue0, blue1 = load(state, at + 64), load(state, at + 72)
        red, green, blue = (
            broadcast(local, record + RED),
            broadcast(local, record + GREEN),
            broadcast(local, record + BLUE),
        )
        own0 = (red * red0 + green * green0 + blue * blue0) * w0
        own1 = (red * red1 + green * green1 + blue * blue1) * w1
        s0, s1 = s0 - own0, s1 - own1
        u0 = keep(open0 & (a0 < _MAX_ALPHA), own0 - odds0 * s0)
        u1 = keep(open1 & (a1 < _MAX_ALPHA), own1 - odds1 * s1)
        dx, dy0 = x - broadcast(local, record + X), y - broadcast(local, record + Y)
        dy1 = dy0 + 2.0
        u, uy0, uy1 = u0 + u1, u0 * dy0, u1 * dy1
        ux, uy = u * dx, uy0 + uy1
        eight = sum_each(
            u,
            ux,
            uy,
            ux * dx,
            uy * dx,
            uy0 * dy0 + uy1 * dy1,
            w0 * red0 + w1 * red1,
            w0 * green0 + w1 * green1,
        )
        store(sums, row, load(sums, row) + eight)
        put(sums, row + SUM_BLUE, get(sums, row + SUM_BLUE) + sum_lanes(w0 * blue0 + w1 * blue1))
    store(state, at, t0)
    store(state, at + 8, t1)
    store(state, at + 16, s0)
    store(state, at + 24, s1)
    return any_lane(maximum(t0, t1) > _MIN_T)


@kernel
def blend_backward(records, entries, offsets, tile_order, queue, width, height, forward, gradient, sums):
    """Differentiate tiles until none is left; any number of threads may run this at once.

    Args:
        records: [N * RECORD] in depth order.
        entries: As in ``blend``.
        offsets: As in ``blend``.
        tile_order: As in ``blend``.
        queue: As in ``blend``.
        width: Pixels of the image.
        height: The same.
        forward: (rgb [H * W * 3], alpha [H * W]) as blended.
        gradient: The same of the loss.
        sums: [E * ROW] output, one row per entry; every row is written.
    """
    rgb, alpha = forward
    grad_rgb, grad_alpha = gradient
    tiles_x, n_tiles = n_tiles_of(width, height)
    state = np.empty(N_BLOCKS * STATE, np.float32)
    alphas = np.empty((BATCH + 1) * BLOCK_PIXELS, np.float32)
    local = np.empty((CHUNK + 1) * RECORD, np.float32)
    masks = np.empty(CHUNK, np.uint64)
    lists, lengths = np.empty(N_BLOCKS * LIST, np.uint8), np.empty(N_BLOCKS, np.uint8)
    add_invisible_record(local)
    while True:
        job = atomic_add(queue, 0, np.int64(1))
        if job >= n_tiles:
            break
        tile = tile_order[job]
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        first, end = offsets[tile], offsets[tile + 1]
        if first == end:
            continue
        sums[first * ROW : end * ROW] = np.float32(0)
        _start(state, left, top, width, height, rgb, alpha, grad_rgb, grad_alpha)
        alive = blocks_inside(left, top, width, height)
        while first < end and alive != np.uint64(0):
            n = min(CHUNK, end - first)
            used = take_chunk(records, entries, first, n, left, top, alive, local, masks)
            list_blocks(n, masks, lists, lengths)
            while used != np.uint64(0):
                block = lowest_bit(used)
                used &= used - np.uint64(1)
                begin, length, at = block * LIST, np.int64(get(lengths, block)), block * STATE
                put(lists, begin + length, np.uint8(CHUNK))
                x, y = block_pixels(block, left, top)
                for start in range(0, length, BATCH):
                    stop = min(length, start + BATCH)
                    fill_alphas(local, lists, begin, start, stop, x, y, alphas)
                    if not _differentiate_batch(
                        local, lists, begin, start, stop, x, y, alphas, state, at, sums, first * ROW
                    ):
                        alive &= ~(np.uint64(1) << np.uint64(block))
                        break
            first += CHUNK


@kernel
def gather(
    sums,
    places,
    starts,
    order,
    first,
    last,
    conics,
    opacities,
    grad_means2d,
    grad_conics,
    grad_opacities,
    grad_colors,
):
    """Add up the rows of sorted records ``first`` to ``last`` and turn moments into gradients.

    Args:
        sums: [E * ROW] from ``blend_backward``.
        places: [E] int32 from ``binning``.
        starts: [N + 1] int64 from ``binning``.
        order: [N] int32, Gaussian of each sorted record.
        first: Start of the range.
        last: Its end.
        conics: [N * 3] of the Gaussians, unsorted.
        opacities: [N], unsorted.
        grad_means2d: [N * 2] output, unsorted like all outputs; only visible Gaussians are written.
        grad_conics: [N * 3] output.
        grad_opacities: [N] output.
        grad_colors: [N * 3] output.
    """
    total = np.empty(ROW, np.float32)
    end = starts[last]
    for s in range(first, last):
        eight, blue = _ZEROS(), np.float32(0)
        for pair in range(get(starts, s), get(starts, s + 1)):
            prefetch(sums, np.int64(get(places, min(pair + _AHEAD, end - 1))) * ROW)
            row = np.int64(get(places, pair)) * ROW
            eight = eight + load(sums, row)
            blue += get(sums, row + SUM_BLUE)
        store(total, 0, eight)
        i = np.int64(get(order, s))
        xx, xy, yy = get(conics, i * 3), get(conics, i * 3 + 1), get(conics, i * 3 + 2)
        ux, uy = get(total, SUM_UX), get(total, SUM_UY)
        put(grad_means2d, i * 2, xx * ux + xy * uy)
        put(grad_means2d, i * 2 + 1, xy * ux + yy * uy)
        put(grad_conics, i * 3, np.float32(-0.5) * get(total, SUM_UXX))
        put(grad_conics, i * 3 + 1, -get(total, SUM_UXY))
        put(grad_conics, i * 3 + 2, np.float32(-0.5) * get(total, SUM_UYY))
        put(grad_opacities, i, get(total, SUM_U) / get(opacities, i))
        put(grad_colors, i * 3, get(total, SUM_RED))
        put(grad_colors, i * 3 + 1, get(total, SUM_GREEN))
        put(grad_colors, i * 3 + 2, blue)
