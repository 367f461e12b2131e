"""Compile all kernels into numba's cache."""

import logging
import sys

from apps.engine.kernels import cache

logging.basicConfig(level=logging.INFO, format="%(message)s")
if not cache.compile_once():
    sys.exit("The search kernels could not be compiled, or may not be written.")
