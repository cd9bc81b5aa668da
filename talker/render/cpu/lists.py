"""Steps 2 and 3 put together: from records in any order to what every tile draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from talker import threads
from talker.render.cpu.binning import BOX, fill, place_shares, sort_and_count
from talker.render.cpu.depth_sort import depth_sort
from talker.render.cpu.layout import RECORD, TILE


@dataclass(frozen=True)
class TileLists:
    """The M visible of N Gaussians, front to back, and the E entries of T tiles that refer to them."""

    width: int  # pixels
    height: int  # pixels
    order: np.ndarray  # [M] int32, the Gaussian of each sorted record
    records: np.ndarray  # [M * RECORD], sorted
    entries: np.ndarray  # [E] int32, the sorted record of each entry, tile by tile
    offsets: np.ndarray  # [T + 1] int64, where each tile's entries begin
    tile_order: np.ndarray  # [T] int64, the longest first: threads that take tiles in turn end together
    places: np.ndarray  # [E] int32, the entries of each sorted record, record by record
    starts: np.ndarray  # [M + 1] int64, where each record's places begin

    def work(self) -> tuple:
        """The first arguments of ``blend`` and ``blend_backward``, with a fresh counter of tiles."""
        queue = np.zeros(1, np.int64)
        return self.records, self.entries, self.offsets, self.tile_order, queue, self.width, self.height


def sort_into_tiles(
    records: np.ndarray, radii: np.ndarray, width: int, height: int, n_threads: int
) -> TileLists:
    """Order the visible records [N * RECORD] by depth and hand them to the tiles they may touch.

    Args:
        records: From ``project``.
        radii: [N] int32, zero where culled.
        width: Pixels of the image.
        height: The same.
        n_threads: Threads to share the work; the result does not depend on it.
    """
    n = len(radii)
    order = np.empty(n, np.int32)
    n_visible = depth_sort(records, radii, np.empty(n, np.uint64), np.empty(n, np.uint64), order)
    n_tiles = -(-width // TILE) * -(-height // TILE)
    sorted_records, boxes = np.empty(n_visible * RECORD, np.float32), np.empty(n_visible * BOX, np.int32)
    counts = np.empty((n_threads, n_tiles), np.int64)
    pairs = np.zeros(n_threads + 1, np.int64)
    shares = threads.split(n_visible, n_threads)

    def count(i: int) -> None:
        pairs[i + 1] = sort_and_count(
            records, order, *shares[i], width, height, sorted_records, boxes, counts[i]
        )

    threads.run(count, n_threads)
    offsets = np.empty(n_tiles + 1, np.int64)
    place_shares(counts, offsets)
    before = np.cumsum(pairs)
    entries, places = np.empty(before[-1], np.int32), np.empty(before[-1], np.int32)
    starts = np.zeros(n_visible + 1, np.int64)

    def place(i: int) -> None:
        fill(boxes, *shares[i], width, int(before[i]), counts[i], entries, places, starts)

    threads.run(place, n_threads)
    tile_order = np.argsort(-np.diff(offsets), kind="stable")
    return TileLists(
        width, height, order[:n_visible], sorted_records, entries, offsets, tile_order, places, starts
    )
