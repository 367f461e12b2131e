"""How this program was installed, for messages that name a command: a checkout, or the package from PyPI."""

from pathlib import Path

_IS_CHECKOUT = (Path(__file__).resolve().parents[1] / "requirements" / "base.in").is_file()

# What runs a command of ours.
PROGRAM = "manage.py" if _IS_CHECKOUT else "vectordb"


def install_command(name: str) -> str:
    """The shell command that installs what requirements/NAME.in asks for. The package has an extra of the same name."""
    if _IS_CHECKOUT:
        # PyTorch is installed by itself, so that it can be the build for CPUs alone.
        if name == "model":
            return "make model"
        return f"python -m pip install --require-hashes -r requirements/{name}.txt"
    return f"python -m pip install 'vectordb-server[{name}]'"
