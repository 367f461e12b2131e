"""What the contract has and this version has not is refused with the code `not_supported`, not passed over."""

from typing import Any

import httpx
import pytest

from tests.api.problems import refused

CHUNK = {"embedding": [1, 0, 0]}

BODIES: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("POST", "{library}/documents", {"text": "A text to be split."}, ["/text"]),
    (
        "POST",
        "{library}/documents",
        {"text": "A text to be split.", "chunking": {"max_tokens": 100, "overlap": 10}},
        ["/text", "/chunking"],
    ),
    ("POST", "{library}/documents", {"text": "Both", "chunks": [CHUNK]}, ["/text"]),
    ("PUT", "{library}/documents/doc", {"text": "A text to be split."}, ["/text"]),
    ("PUT", "{library}/documents/new", {"text": "A text to be split."}, ["/text"]),
    (
        "POST",
        "{library}/documents/batch",
        {"documents": [{"chunks": [CHUNK]}, {"text": "A text to be split."}]},
        ["/documents/1/text"],
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "pointers"), BODIES, ids=lambda value: str(value)[:70])
def test_an_unbuilt_part_says_so(
    client: httpx.Client, shared: str, method: str, path: str, body: dict[str, Any], pointers: list[str]
) -> None:
    library = f"/libraries/{shared}"
    before = (
        client.get(library).json(),
        client.get(f"{library}/documents").json(),
        client.get(f"{library}/chunks").json(),
    )
    refused(client.request(method, path.format(library=library), json=body), 400, "not_supported", *pointers)
    after = (
        client.get(library).json(),
        client.get(f"{library}/documents").json(),
        client.get(f"{library}/chunks").json(),
    )
    assert after == before


@pytest.mark.parametrize("text", ["{}", "{ }"])
def test_an_empty_filter_means_all(client: httpx.Client, shared: str, text: str) -> None:
    listed = client.get(f"/libraries/{shared}/chunks", params={"filter": text}).json()
    assert [chunk["id"] for chunk in listed["items"]] == ["kept", "alone"]


def test_what_is_wrong_beside_an_unbuilt_part_is_named_too(client: httpx.Client, shared: str) -> None:
    body = {"text": "to be split", "title": 0, "colour": "red"}
    response = client.post(f"/libraries/{shared}/documents", json=body)
    refused(response, 400, "invalid", "/title", "/text", "/chunks", "/colour")
