"""The CPU back end: numba kernels on an explicit SIMD layer, forward and backward.

``autograd`` is the entrance and ``lists`` puts sorting and binning together; every other module is one step::

    project            N Gaussians -> one 64-byte record each, ready to be drawn    (parallel over Gaussians)
    depth_sort         indices of the visible ones, front to back                   (serial radix sort)
    binning            per tile of 32x32 pixels the list of records, in order       (parallel over Gaussians)
    blend              tiles -> image                                               (parallel over tiles)
    blend_backward     dL/dimage -> sums for every (tile, record) pair              (parallel over tiles)
    gather             sums -> gradient of each projected Gaussian                  (parallel over Gaussians)
    project_backward   -> gradient of means, quaternions, scales                    (parallel over Gaussians)

Every sum has a fixed order, so results are the same bits with any number of threads.
"""
