"""Step 2: indices of the visible Gaussians, front to back."""

from __future__ import annotations

import numpy as np

from talker.jit.bits import float_bits
from talker.jit.compile import kernel
from talker.jit.simd import get
from talker.render.cpu.layout import DEPTH, RECORD

_DIGIT_BITS = 11
_DIGITS = 1 << _DIGIT_BITS
_MASK = _DIGITS - 1
_PASSES = 3
_INDEX_BITS = 32


@kernel
def depth_sort(records, radii, keys, spare, order):
    """Sort by depth, equal depths by index; returns the number of visible Gaussians.

    A radix sort with all 32 bits of the depth: 16 would swap close neighbours and save nothing.

    Args:
        records: [N * RECORD].
        radii: [N] int32; zero means culled.
        keys: [N] uint64 scratch.
        spare: The same.
        order: [N] int32 output; the front of it is filled.
    """
    histogram = np.zeros((_PASSES, _DIGITS), np.int64)
    n_visible = 0
    for i in range(radii.shape[0]):
        if radii[i] > 0:
            # Depths are positive, so their bits sort as they do; the index below makes ties stable.
            bits = np.int64(float_bits(get(records, i * RECORD + DEPTH)))
            keys[n_visible] = (np.uint64(bits) << np.uint64(_INDEX_BITS)) | np.uint64(i)
            n_visible += 1
            for p in range(_PASSES):
                histogram[p, (bits >> (_DIGIT_BITS * p)) & _MASK] += 1
    source, target = keys, spare
    for p in range(_PASSES):
        total = 0
        for digit in range(_DIGITS):
            count = histogram[p, digit]
            histogram[p, digit] = total
            total += count
        shift = np.uint64(_INDEX_BITS + _DIGIT_BITS * p)
        for i in range(n_visible):
            digit = np.int64((source[i] >> shift) & np.uint64(_MASK))
            target[histogram[p, digit]] = source[i]
            histogram[p, digit] += 1
        source, target = target, source
    for i in range(n_visible):
        order[i] = np.int32(source[i] & np.uint64(0xFFFFFFFF))
    return n_visible
