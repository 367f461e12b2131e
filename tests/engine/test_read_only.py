"""An installation that may not be written to: compiled kernels are used, from there or from the user's cache; without
them, all is scanned."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apps.engine.kernels import cache
from tests.limits import BOUND_BY_PERMISSIONS, make_read_only
from tests.server import ROOT


@pytest.mark.parametrize("place", ["installation", "user's cache", "nowhere"])
def test_an_installation_that_is_read_only_is_used_as_it_is(place: str, tmp_path: Path) -> None:
    installation, own = tmp_path / "installation", tmp_path / "cache"
    own.mkdir()
    is_compiled = place != "nowhere"
    ignored = None if place == "installation" else shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "apps" / "engine", installation / "apps" / "engine", ignore=ignored)
    (installation / "apps" / "__init__.py").touch()
    if place == "user's cache":
        shutil.copytree(cache.folder(), own / "vectordb" / cache.fingerprint()[:16])
    with make_read_only(tmp_path):
        before = sorted(tmp_path.rglob("*"))
        printed = subprocess.run(
            [*BOUND_BY_PERMISSIONS, sys.executable, "-m", "tests.engine.read_only"],
            cwd=installation,
            env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(own)},
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
