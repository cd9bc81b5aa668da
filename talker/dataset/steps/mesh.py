"""Topology of the 478-point face mesh: which landmark is what."""

from __future__ import annotations

import numpy as np

N_LANDMARKS = 478

EYE_OUTER_RIGHT, EYE_OUTER_LEFT = 33, 263
"""Outer eye corners; the person's right eye is on the left of the picture."""
FOREHEAD, CHIN = 10, 152
LIP_INNER_TOP, LIP_INNER_BOTTOM = 13, 14

RIGID = np.array([
    168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 327, 33, 133, 362, 263, 130, 359, 243, 463, 122, 351, 196, 419, 3,
    248, 45, 275, 115, 344, 48, 278, 64, 294, 131, 360, 198, 420, 236, 456, 116, 345, 111, 340, 50, 280, 205,
    425, 117, 346, 118, 347, 101, 330, 36, 266, 9, 8, 151,
])  # fmt: skip
"""Landmarks that speech and blinks hardly move and that sit on something: nose, eye corners, cheekbones.

The outline of the face is left out: its landmarks slide along the outline when the head turns.
"""

EARS = np.array([234, 454])
"""Outline before the ears, right of the person first."""
NOSE_BASE = 2
MOUTH_CORNERS = np.array([61, 291])
"""Right of the person first."""
LIP_LOWER = 17

MIRROR_PAIRS = np.array([
    (33, 263), (133, 362), (234, 454), (127, 356), (93, 323), (162, 389), (54, 284), (103, 332), (67, 297),
    (109, 338), (116, 345), (50, 280), (205, 425), (61, 291), (172, 397), (58, 288),
])  # fmt: skip
"""Landmarks that mirror each other, right of the person first."""

LIPS_INNER = np.array([
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95,
])  # fmt: skip
LIPS_OUTER = np.array([
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146,
])  # fmt: skip
EYE_RIGHT = np.array([33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7])
EYE_LEFT = np.array([263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249])
FACE_OVAL = np.array([
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176,
    149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
])  # fmt: skip
IRIS_RIGHT, IRIS_LEFT = 468, 473
"""Centres of the irises."""

LID_PAIRS_RIGHT = np.array([(159, 145), (158, 153), (160, 144)])
LID_PAIRS_LEFT = np.array([(386, 374), (385, 380), (387, 373)])
"""Upper and lower lid, middle of the eye first."""

BROW_RIGHT = np.array([105, 66, 63, 52, 65, 53])
BROW_LEFT = np.array([334, 296, 293, 282, 295, 283])
