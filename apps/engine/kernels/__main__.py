"""Compile all kernels into numba's cache."""

from apps.engine import kernels

kernels.load()
