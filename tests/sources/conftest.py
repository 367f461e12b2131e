"""Migrations from the vendors' own packages; `make test-migrate` runs them in an environment that has these."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from django.core.management import call_command

from apps.engine.vectors import Float32
from apps.libraries.chunk_fields import Shown
from apps.search.reading import get_chunks

WHOLE = Shown.of(("text", "metadata", "embedding"), is_item=True)
Stored = dict[str, tuple[str, dict[str, Any], list[float] | None]]


@pytest.fixture
def migrate() -> Callable[..., str]:
    """Run the command; return what it says."""

    def run(*arguments: str, **options: Any) -> str:
        out = io.StringIO()
        call_command("migrate_from", *map(str, arguments), stdout=out, **options)
        return out.getvalue()

    return run


def stored(library: str, *ids: str) -> Stored:
    """The text, metadata and vector of each chunk that is there."""
    items, _ = get_chunks(library_id=library, ids=ids, shown=WHOLE)
    plain = orjson.loads(orjson.dumps(items, option=orjson.OPT_SERIALIZE_NUMPY))
    return {item["id"]: (item["text"], item["metadata"], _float32(item["embedding"])) for item in plain}


def _float32(numbers: list[float] | None) -> list[float] | None:
    """The numbers as float32 has them: they come with as many digits as tell these apart."""
    return None if numbers is None else np.array(numbers, np.float32).tolist()


def random_vectors(rows: int, dimension: int) -> Float32:
    return np.random.default_rng(7).normal(size=(rows, dimension)).astype(np.float32)


def assert_same_answers(said: str, rows: int, queries: int) -> None:
    """The comparison at the end of a migration found no difference."""
    assert f"compared: {rows} rows, of which 0 differ; {queries} queries, of which 0 have a farther" in said, said
