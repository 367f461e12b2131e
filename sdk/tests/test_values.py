"""Vectors, filters, ids and JSON on their way, and how results show themselves."""

import asyncio
import base64
import inspect
import json
import subprocess
import sys
import uuid
from array import array
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import pytest

import vectordb_client
from vectordb_client import F, Filter, Hit, Hits, InvalidArgument, QueryMeta, WriteResult
from vectordb_client._core import to_json
from vectordb_client._rows import Columns, chunk_rows, new_id, write_body
from vectordb_client.filters import to_dict
from vectordb_client.vectors import decode, encode

EXPECTED = base64.b64encode(np.array([1, -2.5, 3], "<f4").tobytes()).decode()


class Tensor:
    """What a tensor of torch has, on its way to an array."""

    def detach(self) -> "Tensor":
        return self

    cpu = detach

    def __array__(self) -> Any:
        return np.array([1, -2.5, 3], np.float64)


@pytest.mark.parametrize(
    "vector",
    [
        [1, -2.5, 3],
        (1.0, -2.5, 3.0),
        iter([1, -2.5, 3]),
        array("f", [1, -2.5, 3]),
        array("d", [1, -2.5, 3]),
        memoryview(array("f", [1, -2.5, 3])),
        np.array([1, -2.5, 3], "f4"),
        np.array([1, -2.5, 3], "f8"),
        np.array([1, -2.5, 3], "f2"),
        np.array([1, -2.5, 3], ">f4"),
        np.array([[1, 0], [-2.5, 0], [3, 0]], "f4")[:, 0],
        Tensor(),
        EXPECTED,
    ],
    ids=lambda vector: type(vector).__name__,
)
def test_vectors_are_sent_as_base64_of_float32(vector: Any) -> None:
    assert encode(vector) == EXPECTED


@pytest.mark.parametrize("vector", [["a"], b"abcd", {"a": 1}, np.array(["a"]), np.array([True]), 5, [[1, 2]]])
def test_what_is_no_vector_is_refused(vector: Any) -> None:
    with pytest.raises(InvalidArgument, match="vector"):
        encode(vector)


def test_vectors_come_back_as_arrays() -> None:
    vector = decode(EXPECTED)
    assert isinstance(vector, np.ndarray)
    assert vector.tolist() == [1, -2.5, 3]
    assert decode(None) is None


def test_without_numpy_they_are_arrays_of_the_standard_library() -> None:
    code = "import sys; sys.modules['numpy'] = None; from vectordb_client.vectors import decode, encode"
    code += f"; v = decode({EXPECTED!r}); print(type(v).__name__, list(v), encode(v) == {EXPECTED!r})"
    source = str(Path(vectordb_client.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": source}, capture_output=True, text=True, check=True
    )
    assert run.stdout == "array [1.0, -2.5, 3.0] True\n"


def test_ids_made_here_are_uuids_of_version_7() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in ids} == {(7, uuid.RFC_4122)}
    assert abs(int(ids[0].replace("-", "")[:12], 16) / 1000 - datetime.now().timestamp()) < 60  # noqa: DTZ005


def test_filters_are_what_they_say() -> None:
    year, noon = F("year"), datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    made = ((year >= 1900) & (year < 2000) & ~F("author", "file.name").in_(("a", None))) | (
        F("day") == date(2026, 1, 31)
    )
    assert made.to_dict() == {
        "$or": [
            {
                "$and": [
                    {"year": {"$gte": 1900}},
                    {"year": {"$lt": 2000}},
                    {"$not": {"author.file\\.name": {"$in": ["a", None]}}},
                ]
            },
            {"day": {"$eq": {"$date": "2026-01-31"}}},
        ]
    }
    assert (F("@created_at") > noon).to_dict() == {"@created_at": {"$gt": {"$date": "2026-01-31T12:00:00+00:00"}}}
    assert F("@type", "x").path == "\\@type.x"
    assert ((year > 1) & {"a": 1}) == Filter({"$and": [{"year": {"$gt": 1}}, {"a": 1}]})
    assert to_dict('{"a": 1}') == to_dict({"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    "make",
    [
        lambda: 1900 <= F("year") < 2000,
        lambda: (F("a") == 1) and (F("b") == 1),
        lambda: F("at") > datetime(2026, 1, 1),  # noqa: DTZ001
        lambda: F("a").in_("abc"),
        lambda: F("a") == F("b"),
        lambda: to_dict("[1]"),
        lambda: to_dict(5),  # type: ignore[arg-type]
    ],
)
def test_mistakes_in_filters_are_refused(make: Any) -> None:
    with pytest.raises((InvalidArgument, TypeError)):
        make()


def test_values_of_metadata_become_json() -> None:
    value = {
        "i": np.int64(3),
        "a": np.arange(2),
        "t": (1,),
        "d": date(2026, 1, 2),
        "u": uuid.UUID(int=1),
        "f": F("a") > 1,
    }
    assert json.loads(to_json(value)) == {
        "i": 3,
        "a": [0, 1],
        "t": [1],
        "d": "2026-01-02",
        "u": "00000000-0000-0000-0000-000000000001",
        "f": {"a": {"$gt": 1}},
    }
    for wrong in (float("nan"), object(), {1: {2: object()}}):
        with pytest.raises(InvalidArgument, match="JSON"):
            to_json({"x": wrong})


@pytest.mark.parametrize(
    ("rows", "columns", "match"),
    [
        (None, Columns(), "nothing to write"),
        (None, Columns(texts=["a"], vectors=[[1], [2]]), "one value for each chunk"),
        (None, Columns(texts="abc"), "texts: takes a list"),
        ([{}], Columns(texts=["a"]), "not both"),
        ("text", Columns(), "texts= takes texts"),
        (np.zeros(3), Columns(), "a matrix"),
        ([{"id": "a"}, 5], Columns(), "row 1: a row is a dict"),
        ([{"id": "a", "metadata": {"x": float("nan")}}], Columns(), "row 0: this cannot be sent as JSON"),
        ({"id": ["a", "b"], "vector": [[1], [2]]}, Columns(), "columns go by ids="),
        ([{"vector": 'AACAPw==","text":"boo'}], Columns(), "row 0: a vector is"),
        ([{"vector": "\ud800"}], Columns(), "a vector is"),
        ([{"vector": b"AACAPw=="}], Columns(), "a vector is"),
        ([{"vector": [10**400, 1]}], Columns(), "a vector is"),
        (pd.DataFrame([[1, 2]], columns=["n", "n"]), Columns(), "2 columns 'n'"),
        (pd.DataFrame({"metadata": [{}, "oops"], "year": [3, 4]}), Columns(), "row 1: metadata is a dict, not str"),
    ],
)
def test_mistakes_in_rows_are_refused(rows: Any, columns: Columns, match: str) -> None:
    with pytest.raises(InvalidArgument, match=match):
        chunk_rows(rows, columns, makes_ids=True)


def test_rows_of_all_kinds_are_the_same_chunks() -> None:
    matrix = np.array([[1, 2], [3, 4]], "f4")
    of_columns = chunk_rows(None, Columns(ids=["a", "b"], vectors=matrix, metadatas=[{"n": 1}, None]), makes_ids=True)
    dicts = [{"id": "a", "metadata": {"n": 1}, "vector": [1, 2]}, {"id": "b", "embedding": matrix[1]}]
    chunks = [vectordb_client.Chunk("a", metadata={"n": 1}, embedding=matrix[0]), dicts[1]]
    assert _parsed(of_columns) == _parsed(chunk_rows(dicts, Columns(), makes_ids=True))
    lists = np.array([None, None])
    lists[:] = [[1, 2], [3, 4]]
    of_lists = chunk_rows(None, Columns(ids=["a", "b"], vectors=lists, metadatas=[{"n": 1}, None]), makes_ids=True)
    assert of_lists == of_columns
    assert _parsed(of_columns) == _parsed(chunk_rows(chunks, Columns(), makes_ids=True))


def test_what_the_server_has_no_word_for_is_left_out_or_null() -> None:
    """Fields whose names are no strings are the server's to refuse, as are those that it does not know."""
    frame = pd.DataFrame({"id": ["a", "b"], "at": [pd.Timestamp("2026-01-02", tz="UTC"), pd.NaT], "n": [np.nan, 2.0]})
    assert [row["metadata"] for row in _parsed(chunk_rows(frame, Columns(), makes_ids=True))] == [
        {"at": "2026-01-02T00:00:00+00:00"},
        {"n": 2.0},
    ]
    rows = [{"id": "a", "metadata": {"at": pd.NaT, "day": np.datetime64("NaT")}, 5: "x"}, {"text": "b"}]
    first, second = _parsed(chunk_rows(rows, Columns(), makes_ids=False))
    assert (first, second) == ({"id": "a", "metadata": {"at": None, "day": None}, "5": "x"}, {"text": "b"})


def _parsed(rows: Any) -> list[dict[str, Any]]:
    chunks: list[dict[str, Any]] = json.loads(write_body(rows))["chunks"]
    return chunks


def test_mistakes_in_calls_are_told_before_anything_is_sent() -> None:
    client = vectordb_client.Client("http://127.0.0.1:9", retry=1)
    library = client.library("a")
    for call, match in (
        (lambda: library.query(), "give a text, a vector, or like="),
        (lambda: client.keys.create("a", scopes="read"), "a list of texts, not the text 'read'"),
        (lambda: library.query("x", top_k=3), r"^query\(\) got an unexpected"),
        (lambda: library.export(__file__, format="zip"), "exists; overwrite=True"),
    ):
        with pytest.raises((InvalidArgument, TypeError), match=match):
            call()
    assert str(inspect.signature(vectordb_client.Library.chunks)).endswith("-> 'Listing[Chunk]'")
    assert str(inspect.signature(vectordb_client.AsyncLibrary.reindex)).endswith("-> 'Job'")


def test_results_show_themselves() -> None:
    meta = QueryMeta(1, "brute_force", True, "exact scan", 2, 0.4)
    hits = Hits((Hit("<a>", None, 0.5, 0.5, "x" * 300, {"n": 1}), Hit("b", "d", 0.25, 0.75)), meta)
    assert repr(hits[1]) == "Hit('b', score=0.2500, document_id='d')"
    assert (hits.ids, hits.scores, len(hits), [hit.id for hit in hits][::-1]) == (
        ["<a>", "b"],
        [0.5, 0.25],
        2,
        ["b", "<a>"],
    )
    page = hits._repr_html_()
    assert "&lt;a&gt;" in page
    assert "<a>" not in page
    assert "x" * 200 not in page
    assert "base_score" not in page  # nobody has one
    assert repr(WriteResult(("a",), 1, 0)) == "WriteResult(created=1, updated=0)"
    with pytest.raises(AttributeError):
        hits.meta.revision = 2  # type: ignore[misc]
    assert "vdb_x" not in repr(vectordb_client.Client("http://localhost", "vdb_x"))


def test_it_loads_nothing_but_httpx2() -> None:
    code = "import sys; before = set(sys.modules); import vectordb_client; print(*(set(sys.modules) - before))"
    loaded = {module.partition(".")[0] for module in _run(code).split()}
    assert "httpx2" in loaded
    assert not loaded & {"numpy", "pandas", "orjson", "django", "rich", "click"}


def _run(code: str) -> str:
    """What another interpreter prints."""
    environment = {"PYTHONPATH": str(Path(vectordb_client.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def test_what_is_said_of_a_library_is_short_and_a_table_in_notebooks() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    backup = vectordb_client.BackupInfo(
        "b", at, "wanted", "0.1.0", "sqlite", 5, {f"table_{n}": n for n in range(23)}, 7, "ab"
    )
    assert repr(backup).startswith("BackupInfo(id='b', created_at=2026-01-02T03:04:05+00:00, reason='wanted'")
    assert len(repr(backup)) < 400
    document = vectordb_client.Document("<b>", "", "", {"lang": "en"}, 2, None, at, at)
    assert repr(document) == (
        "Document(id='<b>', metadata={'lang': 'en'}, chunk_count=2, created_at=2026-01-02T03:04:05+00:00, "
        "updated_at=2026-01-02T03:04:05+00:00)"
    )
    assert "<td>id</td><td>&lt;b&gt;</td>" in document._repr_html_()


def test_a_client_that_asked_nothing_closes_the_transport_that_it_was_given() -> None:
    class Transport(httpx2.MockTransport):
        closed = 0

        def close(self) -> None:
            self.closed += 1

        async def aclose(self) -> None:
            self.closed += 1

    async def close(transport: Transport) -> None:
        async with vectordb_client.AsyncClient("http://nowhere", transport=transport):
            pass

    one, other = (Transport(lambda _: httpx2.Response(200)) for _ in range(2))
    client = vectordb_client.Client("http://nowhere", transport=one)
    client.close()
    client.close()
    asyncio.run(close(other))
    assert one.closed == other.closed == 1
