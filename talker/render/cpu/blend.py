"""Step 4: tiles become pixels."""

# ruff: noqa: PLR0913, PLR0917 - kernels take flat arrays, not objects

from __future__ import annotations

import numpy as np

from talker.jit.bits import any_lane, count_lanes, lowest_bit
from talker.jit.compile import inlined, kernel
from talker.jit.simd import (
    LANES,
    atomic_add,
    broadcast,
    get,
    keep,
    lanes,
    load,
    maximum,
    put,
    spread,
    store,
)
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
    TILE,
)
from talker.render.cpu.pixels import fits, write_two_rows
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
"""Floats per block between chunks: transmittance, alpha, red, green, blue of 16 pixels each."""

_MIN_T = constants.MIN_TRANSMITTANCE
_ONES, _ZEROS = lanes([1] * LANES), lanes([0] * LANES)


@inlined
def _clear(state):
    for block in range(N_BLOCKS):
        store(state, block * STATE, _ONES())
        store(state, block * STATE + LANES, _ONES())
        for k in range(2, STATE // LANES):
            store(state, block * STATE + k * LANES, _ZEROS())


@inlined
def _blend_batch(local, lists, begin, start, stop, alphas, state, at):
    """Blend entries ``start`` to ``stop`` of a block's list over its state; true if any pixel is still open.

    Transmittance T only falls, so T > MIN_T after an entry is at once this entry's test and the memory that an
    earlier one failed: no separate flag, and the chain from entry to entry is one multiply and one subtract.
    The product goes on falling after the stop, hence alpha is summed from the weights.
    """
    t0, t1 = load(state, at), load(state, at + 8)
    a0, a1 = load(state, at + 16), load(state, at + 24)
    r0, r1 = load(state, at + 32), load(state, at + 40)
    g0, g1 = load(state, at + 48), load(state, at + 56)
    b0, b1 = load(state, at + 64), load(state, at + 72)
    for j in range(start, stop):
        record = np.int64(get(lists, begin + j)) * RECORD
        alpha = (j - start) * BLOCK_PIXELS
        w0, w1 = load(alphas, alpha) * t0, load(alphas, alpha + LANES) * t1
        t0, t1 = t0 - w0, t1 - w1
        w0, w1 = keep(t0 > _MIN_T, w0), keep(t1 > _MIN_T, w1)
        a0, a1 = a0 + w0, a1 + w1
        red, green, blue = (
            broadcast(local, record + RED),
            broadcast(local, record + GREEN),
            broadcast(local, record + BLUE),
        )
        r0, r1 = w0 * red + r0, w1 * red + r1
        g0, g1 = w0 * green + g0, w1 * green + g1
        b0, b1 = w0 * blue + b0, w1 * blue + b1
    store(state, at, t0)
    store(state, at + 8, t1)
    store(state, at + 16, a0)
    store(state, at + 24, a1)
    store(state, at + 32, r0)
    store(state, at + 40, r1)
    store(state, at + 48, g0)
    store(state, at + 56, g1)
    store(state, at + 64, b0)
    store(state, at + 72, b1)
    return any_lane(maximum(t0, t1) > _MIN_T)


@inlined
def _count_batch(lists, begin, start, stop, alphas, state, at, inside0, inside1, counts):
    """How many pixels each entry is about to be blended into; walks the same transmittances as ``_blend_batch``."""
    t0, t1 = load(state, at), load(state, at + LANES)
    for j in range(start, stop):
        alpha = (j - start) * BLOCK_PIXELS
        alpha0, alpha1 = load(alphas, alpha), load(alphas, alpha + LANES)
        t0, t1 = t0 - alpha0 * t0, t1 - alpha1 * t1
        hit0, hit1 = inside0 & (alpha0 > 0.0) & (t0 > _MIN_T), inside1 & (alpha1 > 0.0) & (t1 > _MIN_T)
        hits = count_lanes(hit0) + count_lanes(hit1)
        k = np.int64(get(lists, begin + j))
        put(counts, k, get(counts, k) + np.int32(hits))


@inlined
def _write(state, left, top, width, height, rgb, alpha):
    """Copy the part of the tile that lies in the image."""
    for block in range(N_BLOCKS):
        x0, y0 = left + (block % LANES) * BLOCK, top + (block // LANES) * BLOCK
        at = block * STATE + BLOCK_PIXELS
        if fits(x0, y0, width, height):
            for half in range(2):
                here, pixel = at + half * LANES, (y0 + 2 * half) * width + x0
                red, green = load(state, here + BLOCK_PIXELS), load(state, here + 2 * BLOCK_PIXELS)
                blue = load(state, here + 3 * BLOCK_PIXELS)
                write_two_rows(rgb, alpha, pixel, width, red, green, blue, load(state, here))
            continue
        for y in range(y0, min(y0 + BLOCK, height)):
            for x in range(x0, min(x0 + BLOCK, width)):
                here, pixel = at + (y - y0) * BLOCK + (x - x0), y * width + x
                put(alpha, pixel, get(state, here))
                put(rgb, pixel * 3, get(state, here + BLOCK_PIXELS))
                put(rgb, pixel * 3 + 1, get(state, here + 2 * BLOCK_PIXELS))
                put(rgb, pixel * 3 + 2, get(state, here + 3 * BLOCK_PIXELS))


@inlined
def _blacken(left, top, width, height, rgb, alpha):
    for y in range(top, min(top + TILE, height)):
        for x in range(left, min(left + TILE, width)):
            pixel = y * width + x
            put(alpha, pixel, np.float32(0))
            put(rgb, pixel * 3, np.float32(0))
            put(rgb, pixel * 3 + 1, np.float32(0))
            put(rgb, pixel * 3 + 2, np.float32(0))


@kernel
def blend(records, entries, offsets, tile_order, queue, width, height, rgb, alpha, pixel_count):
    """Draw tiles until none is left; any number of threads may run this at once.

    Args:
        records: [N * RECORD] in depth order.
        entries: [E] int32 records of all tiles.
        offsets: [T + 1] int64, where each tile's begin.
        tile_order: [T] int64, longest first, so that the threads finish together.
        queue: [1] int64, zero; number of the next tile, shared by the threads.
        width: Pixels of the image.
        height: The same.
        rgb: [H * W * 3] output over black.
        alpha: [H * W] output.
        pixel_count: [N] int32 zeros, increased by the pixels each record is blended into; or empty: no counting.
    """
    tiles_x, n_tiles = n_tiles_of(width, height)
    state = np.empty(N_BLOCKS * STATE, np.float32)
    alphas = np.empty((BATCH + 1) * BLOCK_PIXELS, np.float32)
    local = np.empty((CHUNK + 1) * RECORD, np.float32)
    masks = np.empty(CHUNK, np.uint64)
    lists, lengths = np.empty(N_BLOCKS * LIST, np.uint8), np.empty(N_BLOCKS, np.uint8)
    counts = np.zeros(CHUNK, np.int32)
    counting = pixel_count.shape[0] > 0
    add_invisible_record(local)
    while True:
        job = atomic_add(queue, 0, np.int64(1))
        if job >= n_tiles:
            break
        tile = tile_order[job]
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        first, end = offsets[tile], offsets[tile + 1]
        if first == end:
            _blacken(left, top, width, height, rgb, alpha)
            continue
        _clear(state)
        alive = blocks_inside(left, top, width, height)
        while first < end and alive != np.uint64(0):
            n = min(CHUNK, end - first)
            used = take_chunk(records, entries, first, n, left, top, alive, local, masks)
            list_blocks(n, masks, lists, lengths)
            while used != np.uint64(0):
                block = lowest_bit(used)
                used &= used - np.uint64(1)
                begin, length = block * LIST, np.int64(get(lengths, block))
                put(lists, begin + length, np.uint8(CHUNK))
                x, y = block_pixels(block, left, top)
                for start in range(0, length, BATCH):
                    stop = min(length, start + BATCH)
                    fill_alphas(local, lists, begin, start, stop, x, y, alphas)
                    if counting:
                        in0 = (x < spread(np.float32(width))) & (y < spread(np.float32(height)))
                        in1 = (x < spread(np.float32(width))) & (y + 2.0 < spread(np.float32(height)))
                        _count_batch(
                            lists, begin, start, stop, alphas, state, block * STATE, in0, in1, counts
                        )
                    if not _blend_batch(local, lists, begin, start, stop, alphas, state, block * STATE):
                        alive &= ~(np.uint64(1) << np.uint64(block))
                        break
            if counting:
                for k in range(n):
                    atomic_add(pixel_count, np.int64(get(entries, first + k)), counts[k])
                    counts[k] = 0
            first += CHUNK
        _write(state, left, top, width, height, rgb, alpha)
