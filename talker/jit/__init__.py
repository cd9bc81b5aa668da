"""Kernels compiled on the user's machine by numba: how (``compile``), and an explicit SIMD layer for them.

``simd`` adds eight float32 lanes as one value, ``bits`` their masks and bit patterns, ``vector_math`` exp and log.
Nothing here needs PyTorch.
"""
