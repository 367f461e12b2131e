"""An installation that may not be written to: compiled kernels are used as they are; without them, all is scanned."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.limits import BOUND_BY_PERMISSIONS, make_read_only
from tests.server import ROOT


@pytest.mark.parametrize("is_compiled", [True, False])
def test_an_installation_that_is_read_only_is_used_as_it_is(is_compiled: bool, tmp_path: Path) -> None:
    ignored = None if is_compiled else shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "apps" / "engine", tmp_path / "apps" / "engine", ignore=ignored)
    (tmp_path / "apps" / "__init__.py").touch()
    with make_read_only(tmp_path):
        before = sorted(tmp_path.rglob("*"))
        printed = subprocess.run(
            [*BOUND_BY_PERMISSIONS, sys.executable, "-m", "tests.engine.read_only"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert sorted(tmp_path.rglob("*")) == before
    assert json.loads(printed.stdout) == {
        "loaded": is_compiled,
        "missing": not is_compiled,
        "scanned": not is_compiled,
        "exact": not is_compiled,
        "compiled": 0,
    }
    assert printed.stderr == ""
