"""The rules every back end follows, so that CPU and GPU draw the same picture: those of gsplat 1.5.3.

Per pixel, over the Gaussians sorted by depth (ties by index), front to back::

    alpha = min(MAX_ALPHA, opacity * exp(-sigma)),  sigma = conic form of (pixel centre - projected mean) / 2
    skip the Gaussian where alpha < MIN_ALPHA      (there is no 3-sigma cut beside it)
    stop before the Gaussian that would bring the transmittance to MIN_TRANSMITTANCE or below

A clamped alpha has no gradient. The covariance on the image gets BLUR on its diagonal. The Jacobian of the
projection is taken at a point held within FOV_MARGIN of half the field of view beyond the image's edge, and is
constant outside. Radii are ceil(sqrt(2 ln(opacity / MIN_ALPHA)) * sigma_x or _y).
"""

from __future__ import annotations

MIN_ALPHA = 1.0 / 255.0
MAX_ALPHA = 0.999
MIN_TRANSMITTANCE = 1e-4

BLUR = 0.3
"""Pixels squared; keeps every Gaussian at least about one pixel wide."""

FOV_MARGIN = 0.3
"""Share of half the field of view: together with the image itself the 1.3 of the original code."""

NEAR = 0.01
FAR = 1e10
"""Depths outside are culled; unit of the camera frame."""
