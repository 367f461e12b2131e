"""Build the packages of integrations/; install each with the lowest and with the newest versions of what it requires.

Run by `make test-integrations-wheels` with the Python to install them for; needs PyPI. Each writes documents to a
server and finds them, by `integrations/installed.py`; raises where one does not.
"""

import os
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

from tests.server import ROOT, serving

_UV = Path(sys.executable).parent / "uv"


def main(python: str) -> None:
    projects = sorted(path.parent for path in ROOT.glob("integrations/*/pyproject.toml"))
    with tempfile.TemporaryDirectory() as name, serving(Path(name) / "data", VECTORDB_WORKERS=1) as server:
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("VECTORDB_", "PYTHONPATH"))}
        key = server.authorization["Authorization"].removeprefix("Bearer ")
        environ |= {"VECTORDB_URL": server.url, "VECTORDB_API_KEY": key, "HAYSTACK_TELEMETRY_ENABLED": "False"}
        client = build(ROOT / "sdk", Path(name))
        for project in projects:
            wheel = build(project, Path(name))
            # The lowest versions are taken of what is asked for here, not of what a wheel asks for in turn.
            wanted = [str(client), str(wheel), *requirements(client), *requirements(wheel)]
            run = [_UV, "run", "--quiet", "--isolated", "--no-project", "--python", python]
            run += [option for one in wanted for option in ("--with", one)]
            for resolution in ("lowest-direct", "highest"):
                # By -I, Python does not look for modules beside the script.
                script = ["python", "-I", ROOT / "integrations/installed.py", project.name, resolution]
                subprocess.run([*run, "--resolution", resolution, *script], check=True, env=environ)


def build(project: Path, folder: Path) -> Path:
    """The project's wheel, in a folder of its own."""
    folder = folder / "dist" / project.name
    subprocess.run([_UV, "build", "--quiet", "--wheel", "--out-dir", folder, project], check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def requirements(wheel: Path) -> list[str]:
    """What the wheel requires, as it says itself."""
    [distribution] = distributions(path=[str(wheel)])
    return distribution.requires or []


if __name__ == "__main__":
    main(*sys.argv[1:])
