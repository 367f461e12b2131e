"""Migrations from an index of faiss, which needs no package besides the server's. tests/sources has the others."""

import datetime
import io
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import orjson
import pytest
from django.core.management import CommandError, call_command

from apps.libraries import selectors
from apps.libraries.models import Chunk, Library
from apps.libraries.services.libraries import delete_library
from apps.transfer import migrating
from apps.transfer.models import Job
from apps.transfer.rows import json_value
from apps.transfer.sources.base import Collection, Page
from apps.transfer.sources.chunks import chunk_id_of
from apps.transfer.sources.faiss import FaissSource
from apps.transfer.sources.sampling import smallest

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

ROWS = 60
Migrate = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`flat.index` with `rows.jsonl`, `mapped.index` with `rows.json`."""
    vectors = np.random.default_rng(3).normal(size=(ROWS, 4)).astype(np.float32)
    flat = faiss.IndexFlatIP(4)
    flat.add(vectors)
    faiss.write_index(flat, str(tmp_path / "flat.index"))
    mapped = faiss.IndexIDMap(faiss.index_factory(4, "IVF2,Flat"))
    mapped.train(vectors)
    mapped.add_with_ids(vectors, np.arange(ROWS) * 3)
    faiss.write_index(mapped, str(tmp_path / "mapped.index"))
    rows = [{"id": f"r{i}", "text": f"T{i}", "n": i, "none": None} for i in range(ROWS)]
    rows[2]["id"], rows[4]["text"] = " spaced", "NUL \0"
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    (tmp_path / "rows.json").write_bytes(orjson.dumps({str(3 * i): f"Text {i}" for i in range(ROWS)}))
    return tmp_path


@pytest.fixture
def migrate(folder: Path) -> Migrate:
    """Migrate an index with its rows; return what the command says. It fails in the end where a row was refused."""

    def run(index: str, rows: str, **options: Any) -> str:
        out, refusal = io.StringIO(), ""
        try:
            call_command("migrate_from", "faiss", str(folder / index), rows=str(folder / rows), stdout=out, **options)
        except CommandError as error:
            if "all else is as in the source" not in str(error):
                raise
            refusal = str(error)
        assert refusal.startswith("1 row was refused") == (" 1 refused" in out.getvalue())
        return out.getvalue()

    return run


def test_rows_that_can_be_stored_are_and_the_others_are_told(migrate: Migrate) -> None:
    said = migrate("flat.index", "rows.jsonl")
    assert f"flat: {ROWS - 1} created, 0 updated, 0 left as they were, 1 refused" in said
    assert "refused row 5 (r4): must not contain" in said
    assert f"compared: {ROWS - 1} rows, of which 0 differ; {ROWS - 1} queries, of which 0 have a farther" in said
    metadata = dict(Chunk.objects.values_list("public_id", "metadata"))
    assert metadata["r1"] == {"n": 1, "none": None}
    assert metadata[chunk_id_of(" spaced")] == {"n": 2, "none": None, "original_id": " spaced"}
    assert Library.objects.get().metric == "dot"


def test_rows_are_named_by_the_ids_of_the_index(migrate: Migrate) -> None:
    assert f"{ROWS} created" in migrate("mapped.index", "rows.json", library="other")
    assert selectors.chunk(library_id="other", chunk_id="9")["text"] == "Text 3"
    with pytest.raises(CommandError, match="is not JSON"):
        migrate("mapped.index", "flat.index")
    with pytest.raises(CommandError, match="is no index of faiss"):
        migrate("rows.json", "rows.json")


def test_a_migration_that_fails_goes_on_where_it_was(migrate: Migrate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrating, "ROWS_PER_BATCH", 20)
    read: list[Any] = []

    class Failing(FaissSource):
        def page(self, name: str, after: Any, limit: int) -> Page:
            read.append(after)
            if after == 40 and read.count(40) == 1:
                raise OSError("The network is down.")
            return super().page(name, after, limit)

    monkeypatch.setattr("apps.transfer.sources.faiss.FaissSource", Failing)
    with pytest.raises(CommandError, match=r"cannot be read: The network is down\."):
        migrate("flat.index", "rows.jsonl")
    assert Chunk.objects.count() == 39
    said = migrate("flat.index", "rows.jsonl")
    assert "goes on behind 40 rows" in said
    assert f"{ROWS - 1} created, 0 updated, 0 left as they were, 1 refused" in said
    assert f"compared: {ROWS - 1} rows, of which 0 differ" in said
    assert read == [None, 20, 40, 40]
    assert [job.state for job in Job.objects.all()] == ["done"]


def test_a_migration_whose_library_was_deleted_begins_again(migrate: Migrate, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("apps.operations.management.commands.migrate_from.compare", interrupt)
        with pytest.raises(CommandError, match="Stopped"):
            migrate("flat.index", "rows.jsonl")
    delete_library(library_id="flat")
    said = migrate("flat.index", "rows.jsonl")
    assert "goes on" not in said
    assert f"{ROWS - 1} created" in said
    assert [job.state for job in Job.objects.all()] == ["failed", "done"]


def interrupt(*args: Any) -> None:
    raise KeyboardInterrupt


def test_a_difference_is_told(migrate: Migrate) -> None:
    migrate("flat.index", "rows.jsonl")
    Chunk.objects.filter(public_id="r7").update(text="Another")
    Chunk.objects.filter(public_id="r9").delete()
    assert "0 differ" in migrate("flat.index", "rows.jsonl", mode="upsert")
    Chunk.objects.filter(public_id="r7").update(text="Another")
    with pytest.raises(CommandError, match="Not all is as in the source"):
        migrate("flat.index", "rows.jsonl", mode="skip")
    assert differences() == ["r7: has another text"]


def differences() -> list[str]:
    found: list[str] = Job.objects.latest("pk").result["comparison"]["differences"]
    return found


class Losing(FaissSource):
    """The library loses a row before its rows are compared."""

    def collection(self, name: str) -> Collection:
        Chunk.objects.filter(public_id="r9").delete()
        return super().collection(name)


@pytest.mark.parametrize("sample", [0, 100])
def test_a_row_that_is_lost_is_told_though_another_was_refused(
    migrate: Migrate, monkeypatch: pytest.MonkeyPatch, sample: int
) -> None:
    monkeypatch.setattr("apps.transfer.sources.faiss.FaissSource", Losing)
    with pytest.raises(CommandError, match="Not all is as in the source"):
        migrate("flat.index", "rows.jsonl", sample=sample)
    count, *others = differences()
    read = f"{ROWS} rows were read, of which {ROWS - 1} were made and 1 refused"
    assert count.startswith(f"The library had 0 chunks, {read}, and it has {ROWS - 2} chunks: ")
    ids = "2 ids of the source are not in the library, and 1 rows were refused; among the ids are r4, r9"
    assert others == [ids, *(["r9: is not there"] if sample else [])]
    # Where there are others already, those that were made are counted.
    with pytest.raises(CommandError, match="Not all is as in the source"):
        migrate("flat.index", "rows.jsonl", sample=sample)
    count, *others = differences()
    assert count.startswith(f"The library had {ROWS - 2} chunks, {ROWS} rows were read, of which 1 were made and 1 ref")
    assert others == [ids, *(["r9: is not there"] if sample else [])]


class Skipping(FaissSource):
    """A row comes twice, and the next one not at all, as where somebody writes meanwhile."""

    def page(self, name: str, after: Any, limit: int) -> Page:
        page = super().page(name, after, limit)
        return Page([page.rows[8] if row.key == "r9" else row for row in page.rows], page.next)


def test_a_row_that_was_not_read_is_told_where_no_count_tells(
    migrate: Migrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"; {ROWS} ids, of which 1 are not there" in migrate("flat.index", "rows.jsonl")
    Chunk.objects.filter(public_id="r9").delete()
    monkeypatch.setattr("apps.transfer.sources.faiss.FaissSource", Skipping)
    with pytest.raises(CommandError, match="Not all is as in the source"):
        migrate("flat.index", "rows.jsonl", sample=0)
    [ids] = differences()
    assert ids.startswith("2 ids of the source are not in the library")


def test_rows_that_share_an_id_are_told(migrate: Migrate, folder: Path) -> None:
    rows = (folder / "rows.jsonl").read_text().replace('"id":"r8"', '"id":"r7"')
    (folder / "rows.jsonl").write_text(rows)
    with pytest.raises(CommandError, match="Not all is as in the source"):
        migrate("flat.index", "rows.jsonl", sample=0)
    [count] = differences()
    assert count.endswith(f"and it has {ROWS - 2} chunks: rows of one id are one chunk, or some are lost")


def test_values_of_other_databases_become_json() -> None:
    moment = datetime.datetime(2025, 1, 2, 3, tzinfo=datetime.UTC)
    given = {
        "nan": float("nan"),
        "price": [Decimal("1.50"), Decimal("2")],
        "at": (moment, moment.date()),
        "key": uuid.UUID(int=1),
        "array": np.array([[1, 2]], np.int8),
        "bytes": b"\xff",
        3: {"deep": None},
    }
    assert json_value(given) == {
        "nan": None,
        "price": [1.5, 2],
        "at": ["2025-01-02T03:00:00+00:00", "2025-01-02"],
        "key": "00000000-0000-0000-0000-000000000001",
        "array": [[1, 2]],
        "bytes": "/w==",
        "3": {"deep": None},
    }


def test_a_sample_is_the_same_in_parts() -> None:
    keys = [f"key {i}" for i in range(100)]
    assert smallest([*smallest(keys[:30], 5), *keys[30:]], 5) == smallest(keys, 5)
    assert len(set(smallest(keys, 5))) == 5
