"""Step 3: which records each tile must look at.

Records are copied into depth order first and then handed to the tiles in that order, each thread with counters of
its own: the lists come out sorted, and nothing larger than N is ever sorted. A Gaussian goes to every tile that
its bounding box meets; finer tests cost more here than they save, because blocks are tested exactly later.

The (Gaussian, tile) pairs are listed by tile (``entries``), the order of drawing; ``places`` lists by Gaussian where
its pairs are, the order in which their gradients are summed.
"""

# ruff: noqa: PLR0913, PLR0917 - kernels take flat arrays, not objects

from __future__ import annotations

import numpy as np

from talker.jit.compile import inlined, kernel
from talker.jit.simd import LANES, get, load, prefetch, put, store
from talker.render.cpu.layout import REACH_X, REACH_Y, RECORD, SLACK, TILE, X, Y

BOX = 4
"""int32 per sorted record: first tile column, last, first tile row, last (inclusive; empty if last < first)."""

_AHEAD = 12  # records fetched ahead: depth order jumps through memory
_HALF = np.float32(0.5)
_ZERO = np.float32(0)


@inlined
def _pixels(low, high, last_pixel):
    """First and last integer of a range, held inside of the image; empty if the first is larger.

    Conversion cuts off the fraction; the mathematics library's floor and ceil would be calls.
    """
    low, high = max(low, _ZERO), min(high, last_pixel)
    first = np.int64(low)
    return first + (first < low), np.int64(high) if high >= _ZERO else -1


@kernel
def sort_and_count(records, order, first, last, width, height, sorted_records, boxes, counts):
    """Copy records ``first`` to ``last`` of the depth order, find their tiles and count per tile.

    Args:
        records: [N * RECORD].
        order: [N] int32.
        first: Start of this share of the depth order.
        last: Its end.
        width: Pixels of the image.
        height: The same.
        sorted_records: [N * RECORD] output.
        boxes: [N * BOX] int32 output.
        counts: [T] int64 output of this share alone.

    Returns:
        Number of (Gaussian, tile) pairs of this share.
    """
    tiles_x = (width + TILE - 1) // TILE
    counts[:] = 0
    total = 0
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    for s in range(first, last):
        if s + _AHEAD < last:
            prefetch(records, np.int64(get(order, s + _AHEAD)) * RECORD)
        source, target = np.int64(get(order, s)) * RECORD, s * RECORD
        store(sorted_records, target, load(records, source))
        store(sorted_records, target + LANES, load(records, source + LANES))
        # Pixel p has its centre at p + 0.5: in these coordinates pixels are the integers.
        x, y = get(records, source + X) - _HALF, get(records, source + Y) - _HALF
        reach_x, reach_y = get(records, source + REACH_X), get(records, source + REACH_Y) + SLACK
        x0, x1 = _pixels(x - reach_x, x + reach_x, right)
        y0, y1 = _pixels(y - reach_y, y + reach_y, bottom)
        column0, column1, row0, row1 = x0 // TILE, x1 // TILE, y0 // TILE, y1 // TILE
        if x0 > x1 or y0 > y1:
            column0, column1, row0, row1 = 0, -1, 0, -1
        put(boxes, s * BOX, np.int32(column0))
        put(boxes, s * BOX + 1, np.int32(column1))
        put(boxes, s * BOX + 2, np.int32(row0))
        put(boxes, s * BOX + 3, np.int32(row1))
        total += (column1 - column0 + 1) * (row1 - row0 + 1)
        for row in range(row0, row1 + 1):
            for column in range(column0, column1 + 1):
                counts[row * tiles_x + column] += 1
    return total


@kernel
def place_shares(counts, offsets):
    """Turn the counts of all shares [P, T] into the places where each share writes; offsets [T + 1] of the tiles."""
    place = 0
    for tile in range(counts.shape[1]):
        offsets[tile] = place
        for share in range(counts.shape[0]):
            count = counts[share, tile]
            counts[share, tile] = place
            place += count
    offsets[counts.shape[1]] = place


@kernel
def fill(boxes, first, last, width, pair, next_places, entries, places, starts):
    """Write records ``first`` to ``last`` into the lists of their tiles.

    Args:
        boxes: [N * BOX] int32.
        first: Start of this share.
        last: Its end.
        width: Pixels of the image.
        pair: Number of pairs of all shares before this one.
        next_places: [T] int64 of this share, from ``place_shares``; consumed.
        entries: [E] int32 output: sorted record of each entry.
        places: [E] int32 output: entries of the first record, then those of the second ...
        starts: [N + 1] int64 output: where each record's places begin.
    """
    tiles_x = (width + TILE - 1) // TILE
    for s in range(first, last):
        put(starts, s, np.int64(pair))
        column0, column1 = np.int64(get(boxes, s * BOX)), np.int64(get(boxes, s * BOX + 1))
        row0, row1 = np.int64(get(boxes, s * BOX + 2)), np.int64(get(boxes, s * BOX + 3))
        for row in range(row0, row1 + 1):
            for column in range(column0, column1 + 1):
                tile = row * tiles_x + column
                place = get(next_places, tile)
                put(entries, place, np.int32(s))
                put(next_places, tile, place + 1)
                put(places, pair, np.int32(place))
                pair += 1
    put(starts, last, np.int64(pair))
