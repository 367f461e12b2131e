"""Libraries: make, read, change, delete, count."""

import re
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api.problems import assert_refused

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def test_a_library_needs_only_a_name(client: httpx.Client) -> None:
    response = client.post("/libraries", json={"name": "Only a name"})
    assert response.status_code == 201
    library = response.json()
    assert UUID7.fullmatch(library.pop("id"))
    assert TIMESTAMP.fullmatch(library.pop("created_at"))
    assert TIMESTAMP.fullmatch(library.pop("updated_at"))
    assert library == {
        "name": "Only a name",
        "description": "",
        "dimension": None,
        "metric": "cosine",
        "index_type": "auto",
        "index_params": {},
        "embedding": None,
        "unindexed": [],
        "metadata": {},
    }


def test_a_library_is_read_back_as_it_was_made(client: httpx.Client) -> None:
    wanted = {
        "id": "made-whole",
        "name": "Ganz gemacht",
        "description": "Line one\nline two",
        "dimension": 8192,
        "metric": "euclidean",
        "index_type": "brute_force",
        "index_params": {},
        "metadata": {"owner": {"name": "Ada", "since": 1843}, "tags": ["a", "b"], "ratio": 0.1, "gone": None},
    }
    response = client.post("/libraries", json=wanted)
    assert response.status_code == 201
    assert response.headers["Location"] == "/api/v1/libraries/made-whole"
    again = client.get("/libraries/made-whole")
    assert again.json() == response.json()
    assert again.headers["ETag"] == response.headers["ETag"]
    assert {name: again.json()[name] for name in wanted} == wanted


@pytest.mark.parametrize("library_id", ["place-plain", "place?x=1", "place#x", "place%41", "place-é", "place-日本"])
def test_the_location_of_a_new_library_leads_to_it(client: httpx.Client, library_id: str) -> None:
    location = client.post("/libraries", json={"id": library_id, "name": "N"}).headers["Location"]
    assert location.isascii()
    assert urlsplit(location).path == location
    assert client.get(httpx.URL(client.base_url).join(location)).json()["id"] == library_id


def test_patch_changes_the_fields_named(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    client.patch(path, json={"description": "D", "metadata": {"a": 1, "b": 2}}).raise_for_status()
    before = client.get(path).json()
    response = client.patch(path, json={"name": "New", "metadata": {"c": 3}, "index_type": "brute_force"})
    assert response.status_code == 200
    after = response.json()
    assert after == client.get(path).json()
    changed = {"name": "New", "metadata": {"c": 3}, "index_type": "brute_force", "updated_at": after["updated_at"]}
    assert after == before | changed
    assert after["updated_at"] > before["updated_at"]


@pytest.mark.parametrize("field", ["id", "dimension", "metric", "embedding", "created_at"])
def test_what_makes_a_library_cannot_be_changed(client: httpx.Client, shared: str, field: str) -> None:
    value = client.get(f"/libraries/{shared}").json()[field]
    response = client.patch(f"/libraries/{shared}", json={field: value})
    assert_refused(response, 400, "invalid", f"/{field}")


def test_a_deleted_library_is_gone_with_all_that_was_in_it(client: httpx.Client) -> None:
    body = {"id": "short-lived", "name": "Short-lived", "dimension": 2}
    path = "/libraries/short-lived"
    for _ in range(3):
        assert client.post("/libraries", json=body).status_code == 201
        for _ in range(4):  # several, so that both workers have seen it
            assert client.post(f"{path}/query", json={"vector": [1, 0]}).json()["results"] == []
        document = {"id": "d", "chunks": [{"id": "c", "embedding": [1, 0]}]}
        assert client.post(f"{path}/documents", json=document).status_code == 201
        for _ in range(4):
            assert len(client.post(f"{path}/query", json={"vector": [1, 0]}).json()["results"]) == 1
        deleted = client.delete(path)
        assert (deleted.status_code, deleted.content) == (204, b"")
        for _ in range(4):
            assert_refused(client.post(f"{path}/query", json={"vector": [1, 0]}), 404, "not_found")
        assert_refused(client.delete(path), 404, "not_found")


BODIES = {"chunks": [{"embedding": [1, 0, 0]}]}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"name": "N"}),
        ("DELETE", "", None),
        ("GET", "/stats", None),
        ("POST", "/reindex", {}),
        ("GET", "/reembed", None),
        ("POST", "/reembed", {"embedding": {"provider": "hashing", "model": "hashing-64"}}),
        ("DELETE", "/reembed", None),
        ("GET", "/documents", None),
        ("POST", "/documents", BODIES),
        ("POST", "/documents/batch", {"documents": [BODIES]}),
        ("GET", "/documents/d", None),
        ("PUT", "/documents/d", BODIES),
        ("PATCH", "/documents/d", {"title": "T"}),
        ("DELETE", "/documents/d", None),
        ("GET", "/chunks", None),
        ("GET", "/chunks?document_id=d", None),
        ("POST", "/chunks", BODIES),
        ("GET", "/chunks/c", None),
        ("PATCH", "/chunks/c", {"metadata": {}}),
        ("DELETE", "/chunks/c", None),
        ("POST", "/chunks/get", {"ids": ["c"]}),
        ("POST", "/chunks/delete", {"ids": ["c"]}),
        ("POST", "/chunks/count", {}),
        ("POST", "/query", {"vector": [1, 0, 0]}),
        ("POST", "/query", {"chunk_id": "c"}),
        ("POST", "/query/batch", {"queries": [{"vector": [1, 0, 0]}]}),
    ],
)
def test_an_unknown_library_is_404_everywhere(client: httpx.Client, method: str, path: str, body: object) -> None:
    response = client.request(method, f"/libraries/unknown{path}", json=body)
    assert "'unknown'" in assert_refused(response, 404, "not_found")["detail"]


@pytest.mark.parametrize("by", ["chunks", "documents"])
def test_the_first_vector_fixes_the_dimension(client: httpx.Client, by: str) -> None:
    library = f"/libraries/{client.post('/libraries', json={'name': 'Open'}).json()['id']}"
    assert client.post(f"{library}/{by}", json={"chunks": [{"embedding": [1, 2, 3, 4]}]}).is_success
    assert client.get(library).json()["dimension"] == 4
    response = client.post(f"{library}/{by}", json={"chunks": [{"embedding": [1, 2, 3]}]})
    assert "4" in assert_refused(response, 400, "invalid", "/chunks/0/embedding")["errors"][0]["detail"]


def test_a_refused_write_fixes_no_dimension(client: httpx.Client) -> None:
    library = f"/libraries/{client.post('/libraries', json={'name': 'Open'}).json()['id']}"
    mixed = [{"embedding": [1, 2]}, {"embedding": [1, 2, 3]}]
    assert_refused(client.post(f"{library}/chunks", json={"chunks": mixed}), 400, "invalid", "/chunks/1/embedding")
    assert client.get(library).json()["dimension"] is None


def test_equal_ids_in_two_libraries_have_nothing_to_do_with_each_other(client: httpx.Client, library: str) -> None:
    other = client.post("/libraries", json={"name": "Other", "dimension": 2, "metric": "dot"}).json()["id"]
    for name, embedding in [(library, [1, 0, 0]), (other, [1, 0])]:
        document = {"id": "d", "title": name, "chunks": [{"id": "c", "text": name, "embedding": embedding}]}
        assert client.post(f"/libraries/{name}/documents", json=document).status_code == 201
    client.delete(f"/libraries/{other}/documents/d").raise_for_status()
    assert client.get(f"/libraries/{library}/documents/d").json()["title"] == library
    assert client.get(f"/libraries/{library}/chunks/c").json()["text"] == library
    assert_refused(client.get(f"/libraries/{other}/chunks/c"), 404, "not_found")


def test_stats_count_and_the_revision_moves_with_every_write(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    empty = client.get(f"{path}/stats").json()
    assert (empty["documents"], empty["chunks"], empty["revision"]) == (0, 0, 0)
    client.post(f"{path}/documents", json={"id": "d", "chunks": [{"embedding": [1, 0, 0]}] * 2}).raise_for_status()
    client.post(f"{path}/chunks", json={"chunks": [{"id": "c", "embedding": [1, 0, 0]}]}).raise_for_status()
    stats = client.get(f"{path}/stats").json()
    assert (stats["documents"], stats["chunks"]) == (1, 3)
    index = stats["index"]
    assert set(index) == {
        "kind",
        "state",
        "error",
        "warning",
        "rows_indexed",
        "rows_pending",
        "rows_tail",
        "rows_dead",
        "bytes",
        "memory",
        "built_at",
        "segments",
    }
    assert (index["kind"], index["state"]) == ("brute_force", "ready")
    assert index["rows_indexed"] + index["rows_pending"] == 3
    revisions = [empty["revision"], stats["revision"]]
    for change in ({"text": ""}, {"metadata": {"a": 1}}, {"embedding": [0, 1, 0]}):
        client.patch(f"{path}/chunks/c", json=change).raise_for_status()
        revisions.append(client.get(f"{path}/stats").json()["revision"])
    client.delete(f"{path}/documents/d").raise_for_status()
    revisions.append(client.get(f"{path}/stats").json()["revision"])
    assert revisions == sorted(set(revisions))
    assert client.post(f"{path}/query", json={"vector": [1, 0, 0]}).json()["meta"]["revision"] == revisions[-1]
