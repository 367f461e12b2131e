"""The compiled kernels, with which searches are compared with numpy."""

import pytest

from apps.engine import kernels


@pytest.fixture(autouse=True, scope="package")
def _kernels() -> None:
    kernels.load()
