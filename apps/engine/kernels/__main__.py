"""Compile all kernels into numba's cache."""

import logging

from apps.engine.kernels import cache

logging.basicConfig(level=logging.INFO, format="%(message)s")
cache.compile_once()
