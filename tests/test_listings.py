"""Where a package lists its modules, it lists them all, and no others."""

import re
from pathlib import Path

import pytest

from tests.server import ROOT

pytestmark = pytest.mark.any_database

# Names with commas between them, two spaces or more, and what they are.
_LINE = re.compile(r"^([a-z]\w*(?:, [a-z]\w*)*)  +\S", re.MULTILINE)
# Django looks for these by their names.
_OF_DJANGO = {"admin", "apps", "management", "migrations", "static", "templates"}


def listed(package: Path) -> list[str]:
    """The modules that the docstring of a package lists."""
    docstring = package.joinpath("__init__.py").read_text().partition('"""')[2].partition('"""')[0]
    return [name for names in _LINE.findall(docstring) for name in names.split(", ")]


PACKAGES = [path.parent for path in sorted((ROOT / "apps").rglob("__init__.py")) if listed(path.parent)]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.relative_to(ROOT)))
def test_a_listing_is_complete(package: Path) -> None:
    modules = {path.stem for path in package.glob("[!_]*.py")}
    modules |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert sorted(listed(package)) == sorted(modules - _OF_DJANGO)


def test_listings_are_found() -> None:
    assert len(PACKAGES) > 8
