"""Fields of bodies: unknown ones, wrong types, limits; each refused by its name."""

from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused

X = [1, 0, 0]
CHUNK = {"embedding": X}
NOT_STRINGS: tuple[Any, ...] = (5, 5.0, True, None, [], {}, ["a"])
NOT_OBJECTS: tuple[Any, ...] = (5, True, None, [], "{}", [{}])
NOT_LISTS: tuple[Any, ...] = (5, True, None, {}, "[]", {"0": {}})


def nested(depth: int) -> dict[str, Any]:
    """Metadata of that depth; `{}` has depth 1."""
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"m": value}
    return value


# Metadata, and the pointer into it.
BAD_METADATA: dict[str, tuple[Any, str]] = {
    "null": (None, ""),
    "an array": ([], ""),
    "a string": ("{}", ""),
    "depth 17": (nested(17), "/m" * 16),
    "depth 17 through arrays": ({"a": [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}, "/a" + "/0" * 15),
    "depth 100": (nested(100), "/m" * 16),
    "NUL in a value": ({"a": ["x", {"b": "\0"}]}, "/a/1/b"),
    "NUL in a key": ({"a": {"\0": 1}}, "/a"),
    "an integer of 65 bits": ({"n": 2**64}, "/n"),
    "a negative integer of 65 bits": ({"n": -(2**63) - 1}, "/n"),
    "an integer of 1,000 digits": ({"n": 10**1000}, "/n"),
    "a path to be escaped": ({"a/b": {"c~d": 2**64}}, "/a~1b/c~0d"),
    "more than 64 KiB": ({"a": "x" * 65536}, ""),
    "more than 64 KiB of UTF-8": ({"a": "é" * 32768}, ""),
    "many small values": ({"a": [0] * 33000}, ""),
}


@pytest.mark.parametrize(("metadata", "pointer"), BAD_METADATA.values(), ids=BAD_METADATA)
def test_bad_metadata_is_refused_everywhere(client: httpx.Client, shared: str, metadata: object, pointer: str) -> None:
    library, chunk = f"/libraries/{shared}", {"embedding": X, "metadata": metadata}
    for method, path, body, at in [
        ("POST", "/libraries", {"name": "N", "metadata": metadata}, "/metadata"),
        ("PATCH", library, {"metadata": metadata}, "/metadata"),
        ("POST", f"{library}/chunks", {"chunks": [CHUNK, chunk]}, "/chunks/1/metadata"),
        ("PATCH", f"{library}/chunks/alone", {"metadata": metadata}, "/metadata"),
        ("POST", f"{library}/documents", {"metadata": metadata, "chunks": [CHUNK]}, "/metadata"),
        ("PATCH", f"{library}/documents/doc", {"metadata": metadata}, "/metadata"),
        ("PUT", f"{library}/documents/doc", {"chunks": [chunk]}, "/chunks/0/metadata"),
    ]:
        assert_refused(client.request(method, path, json=body), 400, "invalid", f"{at}{pointer}")
    assert client.get(f"{library}/stats").json()["chunks"] == 2


@pytest.mark.any_database
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_of_metadata_are_finite(client: httpx.Client, shared: str, number: str) -> None:
    body = f'{{"chunks": [{{"embedding": [1, 0, 0], "metadata": {{"a": [1, {number}]}}}}]}}'
    headers = {"Content-Type": "application/json"}
    response = client.post(f"/libraries/{shared}/chunks", content=body, headers=headers)
    assert_refused(response, 400, "invalid", "/chunks/0/metadata/a/1")


@pytest.mark.parametrize(
    "metadata", [nested(16), {"a": "x" * (65536 - 8)}, {"a": "é" * 32764}, {"n": 2**64 - 1}], ids=lambda m: str(m)[:20]
)
def test_metadata_up_to_the_limits_is_stored(client: httpx.Client, chunks: str, metadata: dict[str, Any]) -> None:
    body = {"chunks": [{"id": "c", "embedding": X, "metadata": metadata}]}
    client.post(chunks, json=body).raise_for_status()
    assert client.get(f"{chunks}/c").json()["metadata"] == metadata


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("metadata", "limit"),
    [(nested(17), "VECTORDB_MAX_METADATA_DEPTH"), ({"a": "x" * 65536}, "VECTORDB_MAX_METADATA_BYTES")],
    ids=["depth", "bytes"],
)
def test_a_limit_of_metadata_is_named(client: httpx.Client, metadata: dict[str, Any], limit: str) -> None:
    assert limit in client.post("/libraries", json={"name": "N", "metadata": metadata}).json()["detail"]


@pytest.mark.parametrize(
    ("text", "limit"),
    [("a\0b", ""), ("\0", ""), ("x" * 262145, "VECTORDB_MAX_TEXT_BYTES"), ("🙂" * 65537, "VECTORDB_MAX_TEXT_BYTES")],
    ids=["NUL", "only NUL", "256 KiB and one", "256 KiB and four of UTF-8"],
)
def test_bad_text_is_refused_everywhere(client: httpx.Client, shared: str, text: str, limit: str) -> None:
    library, chunk = f"/libraries/{shared}", {"embedding": X, "text": text}
    for method, path, body, at in [
        ("POST", "/libraries", {"name": "N", "description": text}, "/description"),
        ("PATCH", library, {"description": text}, "/description"),
        ("POST", f"{library}/chunks", {"chunks": [CHUNK, chunk]}, "/chunks/1/text"),
        ("PATCH", f"{library}/chunks/alone", chunk, "/text"),
        ("POST", f"{library}/documents", {"title": text, "chunks": [CHUNK]}, "/title"),
        ("POST", f"{library}/documents", {"source": text, "chunks": [CHUNK]}, "/source"),
        ("PUT", f"{library}/documents/doc", {"chunks": [chunk]}, "/chunks/0/text"),
    ]:
        assert limit in assert_refused(client.request(method, path, json=body), 400, "invalid", at)["detail"]
    assert client.get(f"{library}/stats").json()["chunks"] == 2


@pytest.mark.parametrize("text", ["x" * 262144, "🙂" * 65536], ids=["ASCII", "four bytes each"])
def test_text_of_256_kib_is_stored(client: httpx.Client, chunks: str, text: str) -> None:
    client.post(chunks, json={"chunks": [{"id": "c", "embedding": X, "text": text}]}).raise_for_status()
    assert client.get(f"{chunks}/c").json()["text"] == text


@pytest.mark.any_database
@pytest.mark.parametrize("name", ["", " ", "\t\n", "\u3000", "x" * 201, "a\0b", *NOT_STRINGS], ids=ascii)
def test_a_library_has_a_name_of_1_to_200_characters(client: httpx.Client, shared: str, name: object) -> None:
    assert_refused(client.post("/libraries", json={"name": name}), 400, "invalid", "/name")
    assert_refused(client.patch(f"/libraries/{shared}", json={"name": name}), 400, "invalid", "/name")


@pytest.mark.parametrize("name", ["x", "🙂" * 200, " a ", "\u202e"], ids=ascii)
def test_any_other_name_is_taken_as_it_is(client: httpx.Client, name: str) -> None:
    assert client.post("/libraries", json={"name": name}).json()["name"] == name


WRONG: list[tuple[str, str, dict[str, Any], str]] = [
    *(("POST", "/libraries", {"name": "N", "id": value}, "/id") for value in NOT_STRINGS),
    *(("POST", "/libraries", {"name": "N", "description": value}, "/description") for value in NOT_STRINGS),
    *(
        ("POST", "/libraries", {"name": "N", "dimension": value}, "/dimension")
        for value in ("5", True, 5.0, 5.5, 0, -1, 8193, 2**63, 10**30, None, [3], {})
    ),
    *(
        ("POST", "/libraries", {"name": "N", "metric": value}, "/metric")
        for value in ("L2", "Cosine", "", *NOT_STRINGS)
    ),
    *(("POST", "/libraries", {"name": "N", "index_type": value}, "/index_type") for value in ("x", "", *NOT_STRINGS)),
    *(("POST", "/libraries", {"name": "N", "index_params": value}, "/index_params") for value in NOT_OBJECTS),
    ("POST", "/libraries", {"name": "N", "index_params": {"M": 16}}, "/index_params/M"),
    ("POST", "/libraries", {"name": "N", "index_params": {"a/b~": 1}}, "/index_params/a~1b~0"),
    ("PATCH", "{library}", {"index_params": {"M": 16}}, "/index_params/M"),
    ("PATCH", "{library}", {"index_type": None}, "/index_type"),
    ("PATCH", "{library}", {"description": None}, "/description"),
    ("POST", "/libraries", {}, "/name"),
    *(("POST", "{library}/chunks", {"chunks": value}, "/chunks") for value in ([], *NOT_LISTS)),
    ("POST", "{library}/chunks", {}, "/chunks"),
    *(("POST", "{library}/chunks", {"chunks": [CHUNK, value]}, "/chunks/1") for value in (5, None, [], "a")),
    *(("POST", "{library}/chunks", {"chunks": [CHUNK | {"id": value}]}, "/chunks/0/id") for value in NOT_STRINGS),
    *(("POST", "{library}/chunks", {"chunks": [CHUNK | {"text": value}]}, "/chunks/0/text") for value in NOT_STRINGS),
    *(
        ("POST", "{library}/chunks", {"chunks": [CHUNK | {"document_id": value}]}, "/chunks/0/document_id")
        for value in NOT_STRINGS
        if value is not None
    ),
    *(
        ("POST", "{library}/chunks", {"chunks": [CHUNK], "mode": value}, "/mode")
        for value in ("replace", "", *NOT_STRINGS)
    ),
    ("PATCH", "{library}/chunks/alone", {"text": None}, "/text"),
    *(("POST", "{library}/documents", {"chunks": value}, "/chunks") for value in ([], *NOT_LISTS)),
    *(("POST", "{library}/documents", {"chunks": [CHUNK], "id": value}, "/id") for value in NOT_STRINGS),
    *(("POST", "{library}/documents", {"chunks": [CHUNK], "source": value}, "/source") for value in NOT_STRINGS),
    ("PATCH", "{library}/documents/doc", {"source": None}, "/source"),
    *(("POST", "{library}/documents/batch", {"documents": value}, "/documents") for value in ([], *NOT_LISTS)),
    ("POST", "{library}/documents/batch", {"documents": [{"chunks": [CHUNK]}, 5]}, "/documents/1"),
    *(("POST", "{library}/chunks/get", {"ids": value}, "/ids") for value in NOT_LISTS),
    *(("POST", "{library}/chunks/get", {"ids": ["alone", value]}, "/ids/1") for value in NOT_STRINGS),
    *(
        ("POST", "{library}/chunks/get", {"ids": ["alone"], "include": ["text", value]}, "/include/1")
        for value in ("vector", "metadatas", "", "metadata.a\\", "metadata." + "a." * 16, *NOT_STRINGS)
    ),
    *(
        ("POST", "{library}/chunks/get", {"ids": ["alone"], "vectors": value}, "/vectors")
        for value in ("float", "", *NOT_STRINGS)
    ),
    ("POST", "{library}/chunks/get", {"ids": ["alone"], "include": "embedding"}, "/include"),
    *(("POST", "{library}/chunks/delete", {"ids": value}, "/ids") for value in NOT_LISTS),
    ("POST", "{library}/chunks/delete", {}, ""),
    *(("POST", "{library}/chunks/count", {"filter": value}, "/filter") for value in NOT_OBJECTS),
    *(("POST", "{library}/query/batch", {"queries": value}, "/queries") for value in ([], *NOT_LISTS)),
    *(("POST", "{library}/query/batch", {"queries": [{"vector": X}, value]}, "/queries/1") for value in (5, None, [])),
]


@pytest.mark.any_database
@pytest.mark.parametrize(("method", "path", "body", "pointer"), WRONG, ids=lambda value: str(value)[:60])
def test_a_value_of_the_wrong_kind_is_refused_by_name(
    client: httpx.Client, shared: str, method: str, path: str, body: dict[str, Any], pointer: str
) -> None:
    response = client.request(method, path.format(library=f"/libraries/{shared}"), json=body)
    assert_refused(response, 400, "invalid", pointer)


BODIES: list[tuple[str, str, dict[str, Any], str]] = [
    ("POST", "/libraries", {"name": "N"}, ""),
    ("PATCH", "{library}", {}, ""),
    ("POST", "{library}/chunks", {"chunks": [CHUNK]}, ""),
    ("POST", "{library}/chunks", {"chunks": [CHUNK]}, "/chunks/0"),
    ("PATCH", "{library}/chunks/alone", {}, ""),
    ("POST", "{library}/chunks/get", {"ids": ["alone"]}, ""),
    ("POST", "{library}/chunks/delete", {"ids": ["no"]}, ""),
    ("POST", "{library}/chunks/count", {}, ""),
    ("POST", "{library}/documents", {"chunks": [CHUNK]}, ""),
    ("POST", "{library}/documents", {"chunks": [CHUNK]}, "/chunks/0"),
    ("PUT", "{library}/documents/doc", {"chunks": [CHUNK]}, ""),
    ("PATCH", "{library}/documents/doc", {}, ""),
    ("POST", "{library}/documents/batch", {"documents": [{"chunks": [CHUNK]}]}, ""),
    ("POST", "{library}/documents/batch", {"documents": [{"chunks": [CHUNK]}]}, "/documents/0"),
    ("POST", "{library}/query", {"vector": X}, ""),
    ("POST", "{library}/query/batch", {"queries": [{"vector": X}]}, ""),
    ("POST", "{library}/query/batch", {"queries": [{"vector": X}]}, "/queries/0"),
]


@pytest.mark.any_database
@pytest.mark.parametrize(("method", "path", "body", "at"), BODIES, ids=lambda value: str(value)[:40])
def test_an_unknown_field_and_a_body_that_is_no_object_are_refused(
    client: httpx.Client, shared: str, method: str, path: str, body: dict[str, Any], at: str
) -> None:
    path = path.format(library=f"/libraries/{shared}")
    for name, escaped in [("colour", "colour"), ("Name", "Name"), ("a/b~c", "a~1b~0c"), ("", ""), ("é", "é")]:
        wrong = _with(body, at, name)
        problem = assert_refused(client.request(method, path, json=wrong), 400, "invalid", f"{at}/{escaped}")
        assert "not a known field" in problem["detail"]
    for text in ("[]", "[{}]", '"x"', "5", "true", "null"):
        response = client.request(method, path, content=text, headers={"Content-Type": "application/json"})
        assert "object" in assert_refused(response, 400, "invalid", "")["detail"]


def _with(body: Any, at: str, name: str) -> Any:
    """`body` with one more field in the object at the pointer `at`."""
    head, _, rest = at.removeprefix("/").partition("/")
    if not head:
        return body | {name: None}
    key = int(head) if isinstance(body, list) else head
    inner = _with(body[key], f"/{rest}" if rest else "", name)
    return [inner] if isinstance(body, list) else body | {head: inner}
