"""The tools of agents: what they give, who may call which, and what of each call is counted."""

import json
import re
import uuid
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from apps.api.mcp.tools import TOOLS
from tests.access.callers import bearer, make_key, make_token
from tests.api.mcp.conftest import CHARACTERS, MOST, Call, ask, caller
from tests.api.problems import assert_refused
from tests.server import ROOT, Server, until

READING = ["list_libraries", "describe_library", "search", "get_chunks", "list_documents"]
WRITING = ["remember", "forget", "put_document"]
TEXTS = {"tea": "Anna drinks green tea", "rust": "Iron rusts in water", "bees": "Bees make honey from nectar"}


@pytest.fixture
def filled(client: httpx.Client, library: str) -> str:
    """A library whose chunks have vectors made by the server, and a document of two chunks."""
    client.delete(f"/libraries/{library}").raise_for_status()
    client.post("/libraries", json={"id": library, "name": "Facts", "description": "Small facts"}).raise_for_status()
    chunks = [
        {"id": one, "text": text, "metadata": {"kind": one, "size": len(text), "tags": ["a", one]}}
        for one, text in TEXTS.items()
    ]
    client.post(f"/libraries/{library}/chunks", json={"chunks": chunks}).raise_for_status()
    document = {"title": "Guide", "metadata": {"level": 1}, "chunks": [{"text": "First step"}, {"text": "Second step"}]}
    client.put(f"/libraries/{library}/documents/guide", json=document).raise_for_status()
    return library


def listed(client: httpx.Client, credential: str) -> list[str]:
    response = ask(client, "tools/list", headers=bearer(credential)).raise_for_status()
    return [tool["name"] for tool in response.json()["result"]["tools"]]


def refusal(result: dict[str, Any]) -> str:
    assert result["isError"], result
    assert "structuredContent" not in result
    [content] = result["content"]
    return str(content["text"])


def test_tools_find_what_the_api_finds(client: httpx.Client, call: Call, filled: str) -> None:
    assert filled in [one["id"] for one in all_pages(call, "list_libraries", "libraries")]
    asked = {"text": "what does Anna drink?", "k": 2, "filter": {"size": {"$gt": 3}}}
    found = client.post(f"/libraries/{filled}/query", json=asked | {"mode": "hybrid"}).raise_for_status().json()
    answer = call("search", library=filled, **asked)
    names = ("id", "document_id", "score", "text", "metadata")
    assert answer["results"] == [{name: one[name] for name in names} for one in found["results"]]
    assert answer["results"][0]["id"] == "tea"
    assert answer["next_offset"] == 2
    shown = call("search", library=filled, text="step", mode="lexical", k=5, include=["document"])
    assert [one["document"]["title"] for one in shown["results"]] == ["Guide", "Guide"]
    assert shown["next_offset"] is None
    got = call("get_chunks", library=filled, ids=["rust", "nothing", "tea"])
    assert ([one["id"] for one in got["chunks"]], got["missing"]) == (["rust", "tea"], ["nothing"])
    for wrong in (
        call("search", library=filled, text="tea", filter={"metadata.size": 1}),
        call("get_chunks", library=filled, filter={"size": "19"}),
    ):
        assert "a field is named without metadata before it" in wrong["note"]
    steps = call("get_chunks", library=filled, document_id="guide", limit=1)
    more = call("get_chunks", library=filled, document_id="guide", limit=1, cursor=steps["next_cursor"])
    assert [one["text"] for one in (*steps["chunks"], *more["chunks"])] == ["First step", "Second step"]
    [document] = call("list_documents", library=filled, filter={"level": 1})["documents"]
    assert (document["id"], document["title"], document["chunk_count"]) == ("guide", "Guide", 2)


def all_pages(call: Call, tool: str, of: str, **arguments: Any) -> list[dict[str, Any]]:
    page = call(tool, **arguments)
    found = page[of]
    while page["next_cursor"] is not None:
        page = call(tool, **arguments, cursor=page["next_cursor"])
        found += page[of]
    return list(found)


def test_a_library_is_described_so_that_filters_can_be_written(call: Call, filled: str) -> None:
    about = call("describe_library", library=filled)
    assert (about["description"], about["chunks"], about["documents"]) == ("Small facts", 5, 1)
    assert about["embedding_model"]
    fields = {one["field"]: one for one in about["fields"]}
    assert set(fields) == {"kind", "size", "tags", "@document.level"}
    assert set(fields["kind"]["examples"]) == set(TEXTS)
    assert (fields["size"]["types"]["integer"]["min"], fields["size"]["examples"]) == (19, [])
    # Each example is a filter that finds something.
    for name in ("kind", "tags"):
        for value in fields[name]["examples"]:
            assert call("get_chunks", library=filled, filter={name: value})["chunks"]


def test_a_library_without_a_model_is_searched_by_words(client: httpx.Client, call: Call, library: str) -> None:
    chunk = {"id": "a", "text": "Bees make honey", "embedding": [1, 0, 0]}
    client.post(f"/libraries/{library}/chunks", json={"chunks": [chunk]}).raise_for_status()
    assert [one["id"] for one in call("search", library=library, text="honey")["results"]] == ["a"]


def test_what_is_remembered_is_found_replaced_and_forgotten(client: httpx.Client, call: Call, filled: str) -> None:
    first = call("remember", library=filled, text="The server room is on floor 7", metadata={"topic": "office"})
    assert first["created"]
    assert call("search", library=filled, text="where is the server room?", k=1)["results"][0]["id"] == first["id"]
    again = call("remember", library=filled, id=first["id"], text="It is on floor 8", metadata={"topic": "office"})
    assert (again["id"], again["created"]) == (first["id"], False)
    assert call("forget", library=filled, filter={"topic": "office"}) == {"deleted": 1}
    assert call("forget", library=filled, ids=[first["id"], "tea"]) == {"deleted": 1}
    put = call("put_document", library=filled, id="a/b", text="One.\n\nTwo.", title="AB", metadata={"level": 2})
    assert (put["is_new"], put["created"]) == (True, 1)
    same = call("put_document", library=filled, id="a/b", text="One.\n\nTwo.", title="AB", metadata={"level": 2})
    assert (same["is_new"], same["unchanged"]) == (False, 1)
    actions = [
        (entry["action"], entry["target"])
        for entry in client.get("/audit", params={"library": filled, "limit": 500}).json()["items"]
        if entry["name"] == "Test"
    ]
    assert actions == [
        ("upsert_chunks", None),
        ("upsert_chunks", None),
        ("delete_chunks", None),
        ("delete_chunks", None),
        ("replace_document", "a/b"),
        ("replace_document", "a/b"),
    ]


def test_a_call_with_an_idempotency_key_is_carried_out_once(client: httpx.Client, filled: str) -> None:
    key, agent = make_key(client, "admin"), f"key-{uuid.uuid4().hex}"

    def send(id: int, name: str, **arguments: Any) -> httpx.Response:
        headers = bearer(key["key"]) | {"Idempotency-Key": agent}
        return ask(client, "tools/call", {"name": name, "arguments": arguments}, headers, id=id)

    new = {"library": f"{filled}-new", "text": "Once", "create_library": True}
    # What was refused is no answer to keep.
    assert refusal(send(1, "remember", library=f"{filled}-new", text="Once").json()["result"])
    [first, again] = [send(number, "remember", **new).json() for number in (2, 3)]
    assert first["result"] == again["result"]
    assert (first["id"], again["id"], first["result"]["structuredContent"]["created"]) == (2, 3, True)
    assert client.post(f"/libraries/{filled}-new/chunks/count", json={}).json() == {"count": 1}
    assert_refused(send(4, "remember", library=filled, text="Other"), 409, "idempotency_key_reused")
    # Tools that read do not look at it.
    assert not send(5, "search", library=filled, text="tea").json()["result"]["isError"]
    agent = "k" * 256
    assert_refused(send(6, "forget", library=filled, ids=["tea"]), 400, "invalid")
    agent = uuid.uuid4().hex
    deleted = [send(number, "forget", library=filled, ids=["tea"]).json()["result"] for number in (7, 8)]
    assert [one["structuredContent"] for one in deleted] == [{"deleted": 1}] * 2


def test_memories_end_when_they_should(call: Call, filled: str) -> None:
    hour = call("remember", library=filled, text="one", ttl_seconds=3600)["expires_at"]
    left = datetime.fromisoformat(hour) - datetime.now(UTC)
    assert 3500 < left.total_seconds() < 3601
    until_then = call("remember", library=filled, text="two", expires_at="2100-01-01T00:00:00Z")
    assert until_then["expires_at"] == "2100-01-01T00:00:00.000000Z"
    soon = call("remember", library=filled, text="three", ttl_seconds=1)["id"]
    until(lambda: call("get_chunks", library=filled, ids=[soon])["missing"] == [soon], "it is gone")


def test_a_library_is_made_for_a_memory_if_the_key_may(client: httpx.Client) -> None:
    new = {"library": "agent-memory", "text": "x", "create_library": True}
    write = caller(client, make_key(client, "write")["key"])
    assert refusal(write("remember", **new)) == (
        "There is no library 'agent-memory', and create_library cannot make it: This needs the scope admin; what you "
        "sent has write."
    )
    admin = caller(client, make_key(client, "admin", libraries=["agent-*"])["key"])
    assert not admin("remember", **new)["isError"]
    assert not write("remember", **new)["isError"]
    other = new | {"library": "other"}
    absent = "There is no library {!r} that you may see. list_libraries lists those that there are."
    assert refusal(admin("remember", **other)).startswith(absent.format("other"))


def test_each_key_is_shown_and_may_call_what_its_scopes_say(client: httpx.Client, server: Server, filled: str) -> None:
    read = make_key(client, "read", libraries=[filled])
    assert listed(client, read["key"]) == READING
    assert listed(client, make_key(client, "write")["key"]) == [*READING, *WRITING]
    call = caller(client, read["key"])
    assert [one["id"] for one in call("list_libraries")["structuredContent"]["libraries"]] == [filled]
    assert refusal(call("describe_library", library="elsewhere")) == (
        "There is no library 'elsewhere' that you may see. list_libraries lists those that there are."
    )
    for name, arguments in _write_calls(filled):
        assert refusal(call(name, **arguments)) == "This needs the scope write; what you sent has read."

    token = make_token(client, read, libraries=[filled], filter={"kind": "bees"}, include=["text"])
    assert listed(client, token) == ["search"]
    of_token = caller(client, token)
    [only] = of_token("search", library=filled, text="tea honey water")["structuredContent"]["results"]
    assert (only["id"], "metadata" in only) == ("bees", False)
    assert refusal(of_token("search", library="x", text="tea")) == "There is no library 'x' that you may see."
    for name in READING[:2] + READING[3:]:
        assert "is a search token, for queries and counts only" in refusal(of_token(name, library=filled))


def _write_calls(library: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("remember", {"library": library, "text": "x"}),
        ("forget", {"library": library, "ids": ["tea"]}),
        ("put_document", {"library": library, "id": "x", "text": "x"}),
    ]


def test_agents_only_read_unless_a_setting_lets_them_write(server: Server) -> None:
    with server.client() as client:
        key = make_key(client, "admin")["key"]
        client.post("/libraries", json={"id": "read-only", "name": "x"}).raise_for_status()
        assert listed(client, key) == READING
        call = caller(client, key)
        for name, arguments in _write_calls("read-only"):
            assert refusal(call(name, **arguments)) == f"Agents may only read here: {name} needs VECTORDB_MCP_WRITE=1."
        assert client.post("/libraries/read-only/chunks/count", json={}).json() == {"count": 0}


def test_messages_count_as_reads_and_changes_besides_as_writes(client: httpx.Client, filled: str) -> None:
    key = make_key(client, "write", limits={"reads_per_minute": 6, "writes_per_minute": 2})
    call = caller(client, key["key"])
    assert not call("remember", library=filled, text="one")["isError"]
    assert not call("forget", library=filled, ids=["nothing"])["isError"]
    assert refusal(call("remember", library=filled, text="two")).startswith(
        "This key may make 2 writes a minute. Wait "
    )
    assert not call("search", library=filled, text="one")["isError"]
    response = ask(client, "ping", headers=bearer(key["key"]))
    assert response.headers["RateLimit"].startswith('"reads";r=1')
    ask(client, "ping", headers=bearer(key["key"])).raise_for_status()
    assert_refused(ask(client, "ping", headers=bearer(key["key"])), 429, "rate_limited")
    assert client.post(f"/libraries/{filled}/chunks/list", json={"filter": {"@id": {"$exists": True}}}).json()


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("search", {}, "/library is required"),
        ("search", {"library": 1, "text": "x"}, "/library must be a string."),
        ("search", {"library": "a/b", "text": "x"}, "There is no library 'a/b' that you may see. list_libraries lists"),
        ("search", {"library": "nul\0", "text": "x"}, "There is no library"),
        ("remember", {"library": "none", "text": "x"}, "With create_library, remember makes it."),
        ("remember", {"library": "a b", "text": "x", "create_library": True}, "A new one's id must be a string of 1"),
        ("search", {"query": "x"}, "/text is required.\n/query is not a known field; try text instead."),
        ("search", {"text": "x", "top_k": 3}, "/top_k is not a known field; try k instead."),
        ("search", {"text": " "}, "/text must not be blank."),
        ("search", {"text": "nul\0"}, "/text must not contain the character NUL."),
        ("search", {"text": "x", "k": MOST + 1}, f"/k must be an integer from 1 to {MOST} (limit VECTORDB_MAX_TOOL_"),
        ("search", {"text": "x", "k": 10**400}, "/k must be an integer"),
        ("search", {"text": "x", "k": True}, "/k must be an integer."),
        ("search", {"text": "x", "offset": -1}, "/offset must be an integer from 0"),
        ("search", {"text": "x", "mode": None}, "/mode must not be null"),
        ("search", {"text": "x", "filter": {"a": {"$foo": 1}}}, "/filter/a/$foo"),
        ("search", {"text": "x", "filter": {"a": float("inf")}}, "/filter/a"),
        ("search", {"text": "x", "filter": []}, "/filter must be an object."),
        ("search", {"text": "x", "filter": {"a": {"eq": 1}}}, "/filter/a/eq is not an operator; try $eq."),
        ("search", {"text": "x", "filter": {"metadata": {"a": 1}}}, 'are named by themselves, as in {"a": ...}.'),
        ("search", {"text": "x", "filter": None}, "/filter must be an object; leave it out where there is none."),
        ("search", {"text": "x", "mode": "vector"}, "searched by words alone: set mode to lexical, or leave it out."),
        ("search", {"text": "x", "include": ["embedding"]}, "metadata.topic; vectors are not shown to agents."),
        (
            "search",
            {"text": "x", "include": ["nothing"]},
            "/include/0 must be one of text, embed_text, metadata, docum",
        ),
        ("get_chunks", {"ids": ["x"] * (MOST + 1)}, f"/ids must have at most {MOST} items, not {MOST + 1}."),
        ("get_chunks", {"ids": ["a"], "filter": {}}, "/ids cannot be sent together with document_id"),
        ("get_chunks", {"document_id": "none"}, "/document_id names no document of this library."),
        ("get_chunks", {"cursor": "made up"}, "/cursor is not of this list"),
        ("get_chunks", {"chunk_id": "a"}, "/chunk_id is not a known field; try ids instead."),
        ("list_documents", {"cursor": 7}, "/cursor must be a string."),
        ("list_documents", {"cursor": "made up"}, "/cursor is not a cursor of this server"),
        ("list_documents", {"cursor": ""}, "; leave it out where there is none."),
        ("list_documents", {"filter": {"$or": 1}}, "/filter/$or"),
        ("remember", {"text": "x", "ttl_seconds": 1, "expires_at": None}, "/ttl_seconds cannot be sent together"),
        ("remember", {"text": "x", "ttl_seconds": 0}, "/ttl_seconds must be an integer from 1"),
        ("remember", {"text": "x", "expires_at": "tomorrow"}, "/expires_at"),
        ("remember", {"text": "x", "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at is past: it is 2"),
        ("remember", {"text": " "}, "/text must not be blank."),
        (
            "remember",
            {"text": "x"},
            "has no embedding model, so no text can be stored in it here. Choose another lib",
        ),
        ("put_document", {"id": "x", "text": "x"}, "has no embedding model, so no text can be stored in it here."),
        ("remember", {"text": "x", "id": " "}, "/id must be a string of 1 to 128 characters"),
        ("remember", {"text": "x", "metadata": {"a": 2**70}}, "/metadata/a must be an integer of 64 bits"),
        ("remember", {"text": "x", "metadata": {"a": float("nan")}}, "/metadata/a must be a finite number"),
        ("remember", {"text": "x" * (1 << 19)}, "/text must have at most 262144 bytes"),
        ("forget", {}, "The call needs exactly one of ids and filter"),
        ("forget", {"filter": {}}, "/filter must not be empty"),
        ("put_document", {"id": "a/../b", "text": "x"}, "/id must be a string of 1 to 128 characters without"),
        ("put_document", {"id": "x", "text": ""}, "/text must not be blank."),
    ],
)
def test_wrong_arguments_are_told_in_words_of_the_tools(
    client: httpx.Client, call: Call, shared: str, name: str, arguments: dict[str, Any], said: str
) -> None:
    given = {"library": shared} | arguments if arguments or name != "search" else {}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": given}}
    response = client.post(
        client.base_url.copy_with(path="/mcp"),
        content=json.dumps(message),
        headers={"Content-Type": "application/json"},
    )
    text = refusal(response.raise_for_status().json()["result"])
    assert said in text
    assert len(text) < 1000
    assert not re.search("Traceback|POST|/chunks/|`errors`|send a vector", text)
    assert client.get(f"/libraries/{shared}/stats").json()["chunks"] == 2


def test_answers_are_cut_to_what_an_agent_can_read_and_say_how_to_read_on(
    client: httpx.Client, call: Call, library: str
) -> None:
    texts = {f"c{i}": f"word{i} " * (1000 * i + 1) for i in range(6)}
    chunks = [
        {"id": one, "text": text, "embedding": [1, 0, i], "metadata": {"long": "é\n" * 4000, "i": i}}
        for i, (one, text) in enumerate(texts.items())
    ]
    client.post(f"/libraries/{library}/chunks", json={"chunks": chunks}).raise_for_status()
    for answer in (
        caller(client, make_key(client, "read")["key"])("get_chunks", library=library),
        caller(client, make_key(client, "read")["key"])("describe_library", library=library),
    ):
        assert len(answer["content"][0]["text"]) <= CHARACTERS
    page = call("get_chunks", library=library)
    assert "next_text_from" in page["note"]
    assert [one["id"] for one in page["chunks"]] == list(texts)
    assert page["chunks"][0]["text"] == texts["c0"]
    # The longest is read in pieces.
    read, at = "", 0
    while at is not None:
        [piece] = call("get_chunks", library=library, ids=["c5"], include=["text"], text_from=at)["chunks"]
        read, before, at = read + piece["text"].removesuffix("…"), at, piece.get("next_text_from")
        assert at is None or at > before
    assert read == texts["c5"]
    found = call("search", library=library, text="word1 word2 word3 word4 word5", k=5)
    assert len(found["results"]) == 5
    assert "get_chunks" in found["note"]


def test_every_tool_says_what_it_does() -> None:
    for tool in TOOLS.values():
        shown = tool.listed
        assert shown["description"].endswith(".")
        assert shown["annotations"]["readOnlyHint"] == (tool.name in READING)
        assert shown["annotations"]["destructiveHint"] == (tool.name in WRITING)
        for schema in (shown["inputSchema"], shown["outputSchema"]):
            assert (schema["type"], schema["additionalProperties"]) == ("object", False)
            assert all(field.get("description") for field in schema["properties"].values())


def test_every_tool_and_argument_is_documented() -> None:
    document = (ROOT / "docs" / "agents.md").read_text()
    sections = re.findall(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", document, re.MULTILINE | re.DOTALL)
    documented = {name: re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) for name, text in sections}
    assert documented == {name: list(tool.listed["inputSchema"]["properties"]) for name, tool in TOOLS.items()}
