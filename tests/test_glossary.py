"""The glossary has one term for a thing, and what it names is in the code."""

import dataclasses
from pkgutil import resolve_name

import pytest

from tests.server import ROOT

pytestmark = pytest.mark.any_database

LINES = [line for line in (ROOT / "docs" / "glossary.md").read_text().splitlines() if line.endswith("` |")]
TERMS = {term: code.strip("`") for term, _, code in (line.strip("| ").split(" | ") for line in LINES)}


def test_each_term_stands_once() -> None:
    assert len(TERMS) == len(LINES) > 40


@pytest.mark.parametrize("code", TERMS.values(), ids=TERMS)
def test_what_a_term_names_is_in_the_code(code: str) -> None:
    path, _, attribute = code.partition(":")
    owner, _, field = attribute.partition(".")
    found = resolve_name(f"apps.{path}:{owner}" if owner else f"apps.{path}")
    if field:
        fields = {one.name for one in dataclasses.fields(found)} if dataclasses.is_dataclass(found) else set()
        assert field in fields or hasattr(found, field)
