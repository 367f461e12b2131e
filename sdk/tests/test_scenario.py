"""What users do, by the sync, the async and the local client alike."""

import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vectordb_client import BadRequest, Client, Conflict, F, Forbidden, InvalidArgument, NotFound, PreconditionFailed


def new_library(client: Client, **options: Any) -> Any:
    return client.libraries.create(f"test-{uuid.uuid4().hex}", **options)


def test_libraries(any_client: Client) -> None:
    library = new_library(any_client, dimension=3, metric="dot", metadata={"of": "test"})
    assert (library.info.dimension, library.info.metric, library.info.name) == (3, "dot", library.id)
    with pytest.raises(Conflict) as caught:
        any_client.libraries.create(library.id)
    assert (caught.value.status, caught.value.code) == (409, "conflict")
    assert caught.value.request_id
    again = any_client.libraries.create(library.id, dimension=3, if_exists="get")
    assert again.info.metadata == {"of": "test"}
    with pytest.raises(Conflict, match="dimension=3, not 4"):
        any_client.libraries.create(library.id, dimension=4, if_exists="get")
    changed = any_client.libraries.update(library.id, description="Changed", if_match=again.info.etag)
    assert changed.info.description == "Changed"
    with pytest.raises(PreconditionFailed):
        any_client.libraries.update(library.id, description="Late", if_match=again.info.etag)
    assert library.id in [one.id for one in any_client.libraries.list(page_size=1)]
    assert any_client.library(library.id).describe().description == "Changed"
    any_client.libraries.delete(library.id)
    with pytest.raises(NotFound, match=library.id):
        any_client.libraries.get(library.id)


def test_chunks_of_text(any_client: Client) -> None:
    library = new_library(any_client)
    ids = ["a", "b/ü?#%&+ x", "https://example.com/a//b?c#d"]
    years: list[dict[str, Any]] = [{"year": 1866}, {"year": 1780, "tags": ["x", "y"]}, {}]
    texts = ["An apple a day keeps the doctor away", "A partridge in a pear tree", "Naïve café 😀"]
    written = library.upsert(texts=texts, metadatas=years, ids=ids)
    assert (written.ids, written.created, written.updated) == (tuple(ids), 3, 0)
    assert library.query("apple doctor", k=1).ids == ["a"]
    assert library.query("pear", mode="lexical").ids == [ids[1]]
    hits = library.query("day", k=5, filter=F("year") >= 1800, mode="hybrid", include=["text", "embedding"])
    assert (hits[0].text, hits[0].metadata, hits.meta.index) == (texts[0], None, "brute_force")
    # The vector of an answer is the one that finds it.
    assert library.query(hits[0].embedding, k=1).scores == pytest.approx([1.0])
    assert library.query(like="a", k=3).ids[0] != "a"
    many = library.query_many(["apple", {"text": "pear", "mode": "lexical", "k": 2}], k=1)
    for asked in (pd.Series(["apple doctor", "pear"]), np.array(["apple doctor", "pear"])):
        assert [hits.ids for hits in library.query_many(asked, k=1)] == [["a"], [ids[1]]]
    assert library.query_many(pd.Series([{"like": "a"}]), k=1)[0].ids == library.query(like="a", k=1).ids
    with pytest.raises(InvalidArgument, match="a list of queries"):
        library.query_many("apple")
    assert [found.ids for found in many] == [["a"], [ids[1]]]
    for id, text in zip(ids, texts, strict=True):
        assert library.get_chunk(id).text == text
    got = library.get([ids[2], "none", "a"], include=["metadata.year"])
    assert [(chunk.id, chunk.metadata, chunk.text) for chunk in got] == [
        (ids[2], {}, None),
        ("a", {"year": 1866}, None),
    ]
    assert got.missing == ("none",)
    assert [chunk.id for chunk in library.chunks(order_by=["-year", "@id"], page_size=1)] == ["a", ids[1], ids[2]]
    assert library.count() == 3
    assert library.count({"tags": "x"}) == library.count('{"tags": "y"}') == 1
    assert library.facets("tags", order_by="value").to_dict() == {"x": 1, "y": 1}
    assert {field.field: field.distinct for field in library.fields()} == {"year": 2, "tags": 2}
    assert library.update_metadata({"seen": True}, filter=~F("year").exists()) == 1
    assert library.update_metadata({"year": None}, ids=["a"], mode="merge") == 1
    assert library.get(["a"])[0].metadata == {}
    chunk = library.get_chunk("a")
    assert library.update_chunk("a", text="Pears", metadata={"n": 1}, if_match=chunk.etag).text == "Pears"
    with pytest.raises(PreconditionFailed):
        library.delete_chunk("a", if_match=chunk.etag)
    library.delete_chunk("a")
    assert library.delete(ids[1]) == 1
    assert library.delete(filter=F("seen") == True) == 1  # noqa: E712
    assert library.stats().chunks == 0


def test_chunks_of_vectors(any_client: Client) -> None:
    library = new_library(any_client, dimension=4, metric="euclidean")
    matrix = np.eye(4, dtype=np.float32)
    assert library.upsert(matrix.astype(np.float64)[::-1].T).created == 4
    assert library.insert(vectors=matrix, ids=list("abcd"), metadatas=[{"n": n} for n in np.arange(4)]).created == 4
    with pytest.raises(Conflict) as caught:
        library.insert(vectors=[[1, 2, 3, 4]], ids=["a"])
    assert caught.value.pointers == ("/chunks/0/id",)
    near = library.query(np.array([0.9, 0, 0, 0]), k=1, filter=F("@id").in_(list("abcd")), include=["metadata"])[0]
    assert (near.id, near.metadata, near.distance) == ("a", {"n": 0}, pytest.approx(0.1))
    assert library.update([{"id": "a", "vector": (0, 0, 0, 5)}]).updated == 1
    rows = library.query_many(matrix, k=1, filter=F("n") >= 0, score_threshold=-0.5)
    assert [hits.ids for hits in rows] == [[], ["b"], ["c"], ["d"]]
    kept = library.upsert([{"id": "ok", "vector": [1, 1, 1, 1]}, {"id": "bad", "vector": [1]}], on_invalid="skip")
    assert (kept.ids, kept.skipped[0].index, kept.skipped[0].errors[0].pointer) == (("ok",), 1, "/chunks/1/embedding")
    assert library.upsert([{"id": "words", "text": "no vector", "embedding": None}]).created == 1
    with pytest.raises(BadRequest) as refused:
        library.query([1, 2])
    assert (refused.value.code, refused.value.pointers) == ("invalid", ("/vector",))
    soon = datetime.now(timezone.utc) + timedelta(hours=1)
    assert library.update_metadata(filter={}, expires_at=soon) == 10
    assert library.get_chunk("a").expires_at == soon


def test_documents(any_client: Client, tmp_path: Path) -> None:
    library = new_library(any_client)
    documents = library.documents
    diff = documents.put("guide/one", text="One paragraph.\n\nAnother one.", metadata={"lang": "en"}, title="One")
    assert (diff.created, diff.unchanged) == (1, 0)
    with pytest.raises(PreconditionFailed):
        documents.put("guide/one", text="Other", create_only=True)
    assert documents.put("guide/one", text="One paragraph.\n\nAnother one.", title="One").unchanged == 1
    made = documents.create("two", chunks=[{"id": "c", "text": "See", "metadata": {"n": 1}}, {"text": "Saw"}])
    assert (made.chunk_count, made.chunk_ids[0]) == (2, "c")
    with pytest.raises(Conflict):
        documents.put_many([{"id": "two", "chunks": ["x"]}], mode="insert")
    diffs = documents.put_many([{"id": "two", "chunks": [{"id": "c", "text": "See"}]}, {"id": "three", "text": "New"}])
    assert [(one.id, one.updated, one.created, one.deleted) for one in diffs] == [("two", 1, 0, 1), ("three", 0, 1, 0)]
    got = documents.get("guide/one")
    assert documents.update("guide/one", metadata={"lang": "de"}, if_match=got.etag).metadata == {"lang": "de"}
    assert [one.id for one in documents.list(filter=F("lang") == "de")] == ["guide/one"]
    assert [chunk.document_id for chunk in library.chunks(document_id="two")] == ["two"]
    assert library.query("see", include=["document"], k=1)[0].document.id == "two"
    documents.delete("two")
    with pytest.raises(NotFound):
        documents.get("two")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ä.md").write_text("# Title\n\nText.")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    report = documents.upload_folder(tmp_path, prefix="docs/", metadata=lambda file: {"suffix": file.suffix})
    assert [one.id for one in report.diffs] == ["docs/sub/ä.md"]
    assert sorted(report.errors) == ["docs/b.txt", "docs/empty.txt"]
    assert documents.upload_folder(tmp_path).unchanged == 0
    assert documents.upload_folder(tmp_path).unchanged == 1


def test_uploads(any_client: Client) -> None:
    library = new_library(any_client, dimension=2)
    rows = ({"id": f"r{n}", "vector": [n, 1], "metadata": {"n": n}} for n in range(2500))
    seen: list[int] = []
    report = library.upload(rows, batch_size=1000, parallel=2, progress=seen.append)
    assert (report.rows, report.created, report.errors, report.batches, max(seen)) == (2500, 2500, (), 3, 2500)
    matrix = np.random.default_rng(1).random((10, 2))
    again = library.upload(vectors=matrix, ids=[f"r{n}" for n in range(10)], metadatas=[{}] * 10)
    assert (again.created, again.updated, library.count()) == (0, 10, 2500)
    bad: list[Any] = [
        {"id": "new", "vector": [1, 2]},
        {"id": "short", "vector": [1]},
        5,
        {"id": "half", "text": "\ud83d"},
    ]
    mixed = library.upload(bad)
    assert (mixed.created, [(error.row, error.id) for error in mixed.errors]) == (
        1,
        [(1, "short"), (2, None), (3, "half")],
    )
    assert (mixed.errors[0].detail[:16], mixed.errors[0].pointer) == ("embedding has 1 ", "/embedding")
    with pytest.raises(InvalidArgument, match="row 2"):
        library.upload(bad, on_error="raise")


def test_the_index_and_the_model(any_client: Client) -> None:
    library = new_library(any_client)
    library.upsert(texts=["One", "Two"])
    job = library.reindex("brute_force")
    assert job.wait(timeout=60).state == "done"
    move = library.reembed({"provider": "hashing", "model": "hashing-64"})
    assert move.info.kind == "reembed"
    assert library.reembedding().info.total == 2
    move.cancel()
    assert library.describe().embedding["provider"] != "hashing"
    with pytest.raises(NotFound):
        library.reembedding()


def test_files(any_client: Client, tmp_path: Path) -> None:
    library = new_library(any_client)
    library.documents.put("d", chunks=["One", "Two"], title="D")
    with pytest.raises(InvalidArgument, match="jsonl, zip, parquet"):
        library.export(tmp_path / "library.doc")
    file = library.export(tmp_path / "library.zip")
    assert [one.name for one in tmp_path.iterdir()] == ["library.zip"]
    with pytest.raises(InvalidArgument, match="exists; overwrite=True replaces it"):
        library.export(file)
    file.write_text("something else")
    assert library.export(file, overwrite=True).read_bytes().startswith(b"PK")
    (tmp_path / "bad.zip").write_text("{")
    with pytest.raises(BadRequest):
        library.import_(tmp_path / "bad.zip")
    copy = any_client.library(f"{library.id}-copy")
    with pytest.raises(NotFound):
        copy.import_(file)
    job = copy.import_(file, create=True)
    result = job.wait(timeout=120).result
    assert (result["created"], result["refused"]) == (2, 0)
    assert job.info.id in [one.info.id for one in any_client.jobs.list(kind="import", library=copy.id)]
    assert any_client.jobs.get(job.info.id).info.state == "done"
    assert copy.documents.get("d").title == "D"
    (tmp_path / "table.csv").write_text("body,year\nThree,1900\n")
    library.import_(tmp_path / "table.csv", columns={"text": "body"}).wait(timeout=120)
    assert [chunk.text for chunk in library.chunks(filter=F("year") == 1900)] == ["Three"]


def test_a_large_library_is_streamed(any_client: Client, tmp_path: Path) -> None:
    library = new_library(any_client)
    text = "Much to say. " * 10_000
    library.upload({"id": str(n), "text": f"{n} {text}", "vector": [n, 1]} for n in range(100))
    lines = library.export(tmp_path / "library.jsonl").read_text().splitlines()
    assert sum(text in line for line in lines) == 100


def test_a_library_shows_what_is_known_of_it(any_client: Client) -> None:
    library = any_client.libraries.create(f"shown-{uuid.uuid4().hex}")
    assert repr(getattr(library, "_target", library)).endswith("', metric='cosine')")
    library.upsert(vectors=[[1, 2]])
    library.describe()
    assert ", dimension=2, metric=" in repr(getattr(library, "_target", library))


def test_keys(any_client: Client) -> None:
    made = any_client.keys.create("reader", scopes=["read"], libraries=["notes*"], limits={"reads_per_minute": 9})
    assert made.key not in repr(made)
    changed = any_client.keys.update(made.id, name="writer", scopes=["write"], limits={"reads_per_minute": None})
    assert (changed.name, changed.scopes) == ("writer", ("write",))
    assert any_client.keys.get(made.id).limits["reads_per_minute"] is None
    assert any_client.keys.rotate(made.id, overlap_seconds=5).key != made.key
    assert made.id in [one.id for one in any_client.keys.list()]
    soon = datetime.now(timezone.utc) + timedelta(hours=1)
    token = any_client.keys.search_token(made.id, libraries=["notes"], filter=F("n") == 1, expires_at=soon)
    assert token.token not in repr(token)
    any_client.keys.revoke(made.id)
    actions = [entry.action for entry in any_client.audit.list(since=made.created_at) if entry.target == made.id]
    assert actions == ["create_key", "update_key", "rotate_key", "revoke_key"]
    assert list(any_client.jobs.list(kind="backup", state="running")) == []
    for missing in (any_client.jobs.get, any_client.jobs.cancel):
        with pytest.raises(NotFound):
            missing("job-0123456789abcdef")


def test_backups(any_client: Client) -> None:
    id = any_client.backups.create().wait(timeout=120).result["backup"]
    assert (any_client.backups.get(id).reason, id in [one.id for one in any_client.backups.list()]) == ("request", True)
    any_client.backups.delete(id)
    with pytest.raises(NotFound):
        any_client.backups.get(id)


def test_what_a_server_says_of_itself(any_client: Client) -> None:
    assert any_client.health() == "ok"
    assert set(any_client.ready().values()) == {"ok"}
    assert "vectordb_" in any_client.metrics()


def test_scopes(client: Client) -> None:
    made = client.keys.create("reader", scopes=["read"])
    with Client(client.url, made.key) as reader, pytest.raises(Forbidden):
        reader.libraries.create("x")
    client.keys.revoke(made.id)
