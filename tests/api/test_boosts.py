"""Boosts: the score of the best candidates plus what filters and decays add, compared with a plain sum."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.api.problems import assert_refused

V = {"vector": [1, 0, 0]}


@pytest.fixture(scope="module")
def path(client: httpx.Client) -> str:
    """A library of 60 chunks, some written twice, whose fields have all types."""
    client.post("/libraries", json={"id": "boosted", "name": "Boosted", "dimension": 3}).raise_for_status()
    rng = random.Random(3)
    values = [1, 2.5, -3, 1e300, None, "4", True, [2], {"n": 2}]
    chunks = [
        {
            "id": f"c{n}",
            "text": "rare common" if n % 4 == 0 else "common",
            "embedding": [1, rng.choice([0, 0.1, 0.2, 0.5]), rng.random() if n % 3 else 0],
            "metadata": {"tag": rng.choice("xyz"), "even": n % 2 == 0} | ({"n": rng.choice(values)} if n % 5 else {}),
        }
        for n in range(60)
    ]
    for some in (chunks, chunks[10:20], chunks[40:45]):
        client.post("/libraries/boosted/chunks", json={"chunks": some}).raise_for_status()
    return "/libraries/boosted"


def answer(client: httpx.Client, path: str, query: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = client.post(f"{path}/query", json=query).raise_for_status().json()
    return found


def value_of(boost: dict[str, Any], metadata: dict[str, Any]) -> float:
    """What the boost's weight is multiplied by: for a filter on `tag` or `even`, and a decay of `n`."""
    if "filter" in boost:
        return float(boost["filter"].items() <= metadata.items())
    value = metadata.get(boost["field"])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return float(2 ** (-abs(value - boost["decay"]["origin"]) / boost["decay"]["half_life"]))


BOOSTS: dict[str, list[dict[str, Any]]] = {
    "a filter": [{"filter": {"tag": "x"}, "weight": 0.3}],
    "a negative weight": [{"filter": {"even": True}, "weight": -0.5}],
    "a decay": [{"field": "n", "decay": {"half_life": 2, "origin": 1.5}, "weight": 1}],
    "several": [
        {"filter": {"tag": "x"}, "weight": 0.1},
        {"filter": {"tag": "z", "even": False}, "weight": 0.25},
        {"field": "n", "decay": {"half_life": 0.5, "origin": -3}, "weight": 0.4},
    ],
}
RANKINGS: dict[str, dict[str, Any]] = {
    "vector": V,
    "exact": V | {"exact": True},
    "filtered": V | {"filter": {"tag": {"$in": ["x", "y"]}}},
    "filtered after": V | {"filter": {"even": True}, "filter_mode": "post"},
    "chunk_id": {"chunk_id": "c4"},
    "lexical": {"text": "rare common", "mode": "lexical"},
    "hybrid": V | {"text": "rare", "mode": "hybrid"},
}


@pytest.mark.any_database
@pytest.mark.parametrize("boosts", BOOSTS.values(), ids=BOOSTS)
@pytest.mark.parametrize("ranking", RANKINGS.values(), ids=RANKINGS)
def test_scores_are_base_scores_and_what_boosts_add(
    client: httpx.Client, path: str, ranking: dict[str, Any], boosts: list[dict[str, Any]]
) -> None:
    depth = 25
    base = answer(client, path, ranking | {"k": depth})["results"]
    place = {one["id"]: i for i, one in enumerate(answer(client, path, V | {"k": 60, "filter": {}})["results"])}
    expected = []
    for one in base:
        added = sum(boost["weight"] * value_of(boost, one["metadata"]) for boost in boosts)
        expected.append((one["score"] + added, one))
    created = {item["id"]: i for i, item in enumerate(client.get(f"{path}/chunks?limit=100").json()["items"])}
    assert place.keys() == created.keys()
    expected.sort(key=lambda pair: (-pair[0], created[pair[1]["id"]]))
    query = ranking | {"boost": boosts, "depth": depth}
    found = answer(client, path, query | {"k": depth})
    results = found["results"]
    assert [one["id"] for one in results] == [one["id"] for _, one in expected]
    assert [one["score"] for one in results] == pytest.approx([score for score, _ in expected])
    assert [one["base_score"] for one in results] == [one["score"] for _, one in expected]
    assert [one["distance"] for one in results] == [one["distance"] for _, one in expected]
    assert not found["meta"]["exact"]
    assert found["meta"]["plan"].endswith(f"then boost ({len(base)} candidates)")
    # Pages are slices, also of what a threshold leaves; a batch answers the same.
    least = results[len(results) // 2]["score"]
    pages = [query | {"k": 4, "offset": start, "score_threshold": least} for start in range(0, 20, 4)]
    batch = client.post(f"{path}/query/batch", json={"queries": pages}).raise_for_status().json()["results"]
    paged = [one for page in batch for one in page["results"]]
    assert paged == [one for one in results if one["score"] >= least][:20]
    assert answer(client, path, pages[1])["results"] == batch[1]["results"]


def test_only_candidates_are_boosted(client: httpx.Client, path: str) -> None:
    last = answer(client, path, V | {"k": 60})["results"][-1]
    boost = [{"filter": {"@id": last["id"]}, "weight": 5}]
    assert last["id"] not in [one["id"] for one in answer(client, path, V | {"boost": boost, "depth": 59})["results"]]
    first = answer(client, path, V | {"boost": boost, "depth": 60})["results"][0]
    assert (first["id"], first["base_score"]) == (last["id"], last["score"])
    assert first["score"] == pytest.approx(last["score"] + 5)


def test_a_decay_of_creation_counts_from_now_or_from_an_origin(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    client.post(f"{path}/chunks", json={"chunks": [{"id": "a", "embedding": [1, 0, 0]}]}).raise_for_status()
    created = datetime.fromisoformat(client.get(f"{path}/chunks/a").json()["created_at"])

    def added(**decay: Any) -> float:
        boost = [{"field": "@created_at", "decay": decay, "weight": 2}]
        [one] = answer(client, path, V | {"boost": boost})["results"]
        return float(one["score"] - one["base_score"])

    for seconds in (-60, 60):
        origin = (created + timedelta(seconds=seconds)).isoformat()
        assert added(half_life=60, origin=origin) == pytest.approx(1)
        assert added(half_life=30, origin=origin) == pytest.approx(0.5)
    assert added(half_life=1e9) == pytest.approx(2, abs=1e-5)
    assert 0 < added(half_life=(datetime.now(UTC) - created).total_seconds()) <= 1.001
    assert added(half_life=5e-324, origin=(created + timedelta(days=1)).isoformat()) == 0


def test_dates_of_chunks_and_of_their_documents_decay(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    dates = ["2026-01-31", "2026-01-31T00:00:00+02:00", "2026-01-30T23:00:00.5Z", "31.01.2026", 1769817600, None]
    chunks = [{"id": str(n), "embedding": [1, 0, 0], "metadata": {"on": date}} for n, date in enumerate(dates)]
    document = {"id": "d", "metadata": {"released": "2026-01-30"}, "chunks": chunks[:2]}
    client.post(f"{path}/documents", json=document).raise_for_status()
    client.post(f"{path}/chunks", json={"chunks": chunks[2:]}).raise_for_status()

    def added(field: str) -> dict[str, float]:
        boost = [{"field": field, "decay": {"half_life": 3600, "origin": "2026-01-31"}, "weight": 1}]
        results = answer(client, path, V | {"boost": boost})["results"]
        return {one["id"]: one["score"] - one["base_score"] for one in results}

    expected = {"0": 1, "1": 1 / 4, "2": 2 ** -(3599.5 / 3600), "3": 0, "4": 0, "5": 0}
    assert added("on") == pytest.approx(expected)
    expected = dict.fromkeys(expected, 0) | dict.fromkeys("01", 2**-24)
    assert added("@document.released") == pytest.approx(expected)
    client.patch(f"{path}/documents/d", json={"metadata": {"released": "2026-01-31T01:00Z"}}).raise_for_status()
    assert added("@document.released") == pytest.approx(expected | dict.fromkeys("01", 0.5))


def test_the_time_that_is_left_decays(client: httpx.Client, library: str) -> None:
    path = f"/libraries/{library}"
    times = {"soon": "2999-01-01T00:00:00Z", "later": "2999-01-01T02:00:00+01:00", "never": None}
    chunks = [{"id": name, "embedding": [1, 0, 0], "expires_at": time} for name, time in times.items()]
    client.post(f"{path}/chunks", json={"chunks": chunks}).raise_for_status()
    decay = {"half_life": 3600, "origin": "2999-01-01"}
    boost = [{"field": "@expires_at", "decay": decay, "weight": 1}]
    results = answer(client, path, V | {"boost": boost})["results"]
    assert {one["id"]: one["score"] for one in results} == pytest.approx({"soon": 2, "later": 1.5, "never": 1})


@pytest.mark.any_database
def test_a_decay_without_effect_is_told(client: httpx.Client, path: str) -> None:
    decays = [
        ({"field": "nn", "decay": {"half_life": 1, "origin": 2}}, "No candidate has a number at nn"),
        (
            {"field": "n", "decay": {"half_life": 1}},
            "No candidate has a time at n that is near enough to count; numbers",
        ),
        ({"field": "@expires_at", "decay": {"half_life": 1}}, "No candidate has a time at @expires_at that is near"),
    ]
    for boost, warning in decays:
        meta = answer(client, path, V | {"boost": [boost | {"weight": 1}]})["meta"]
        assert meta["warning"].startswith(warning)
        assert ("numbers need an origin" in meta["warning"]) == (boost == decays[1][0])
    useful = {"field": "n", "decay": {"half_life": 1, "origin": 2}, "weight": 1}
    assert "warning" not in answer(client, path, V | {"boost": [useful], "k": 60})["meta"]
    above = answer(client, path, V | {"boost": [useful, useful | {"weight": -3}], "score_threshold": 2.1})["meta"]
    assert "no score is above 2.0" in above["warning"]


def test_full_groups_of_boosted_candidates_lack_nothing(client: httpx.Client, path: str) -> None:
    query = {**V, "depth": 20, "filter": {"even": True}, "filter_mode": "post", "boost": BOOSTS["a filter"]}
    groups = {"group_by": "tag", "group_size": 1}
    for k, incomplete in ((1, False), (10, True)):
        assert answer(client, path, {**query, **groups, "k": k})["meta"]["incomplete"] is incomplete
    assert answer(client, path, {**query, "k": 20})["meta"]["incomplete"] is True


def test_groups_are_made_of_boosted_candidates(client: httpx.Client, path: str) -> None:
    query: dict[str, Any] = V | {"boost": BOOSTS["several"], "depth": 30}
    expected: dict[str, list[str]] = {}
    for one in answer(client, path, query | {"k": 30})["results"]:
        expected.setdefault(one["metadata"]["tag"], []).append(one["id"])
    assert len(expected) == 3
    for k, offset in ((3, 0), (1, 1), (2, 2)):
        found = answer(client, path, query | {"group_by": "tag", "group_size": 2, "k": k, "offset": offset})["results"]
        chosen = list(expected.values())[offset : offset + k]
        assert [one["id"] for one in found] == [one for some in chosen for one in some[:2]]
        assert all(one["group"] == one["metadata"]["tag"] and "base_score" in one for one in found)


@pytest.mark.any_database
@pytest.mark.parametrize(
    ("query", "pointer", "remedy"),
    [
        ({"boost": [{"weight": 1}]}, "/boost/0", "either a filter, or a field with a decay"),
        ({"boost": [{"filter": {}, "field": "n", "weight": 1}]}, "/boost/0", "either"),
        ({"boost": [{"filter": {}}]}, "/boost/0/weight", "required"),
        ({"boost": [{"filter": {"a": {"$gr": 1}}, "weight": 1}]}, "/boost/0/filter/a/$gr", "operator"),
        ({"boost": [{"field": "n", "weight": 1}]}, "/boost/0/decay", "required with a field"),
        ({"boost": [{"filter": {}, "decay": {"half_life": 1}, "weight": 1}]}, "/boost/0/decay", "for a field"),
        ({"boost": [{"field": "@id", "decay": {"half_life": 1}, "weight": 1}]}, "/boost/0/field", "with a filter"),
        ({"boost": [{"field": "@no", "decay": {"half_life": 1}, "weight": 1}]}, "/boost/0/field", "path of a field"),
        ({"boost": [{"field": "@text", "decay": {"half_life": 1}, "weight": 1}]}, "/boost/0/field", "with a filter"),
        ({"boost": [{"field": "n", "decay": {}, "weight": 1}]}, "/boost/0/decay/half_life", "required"),
        (
            {"boost": [{"field": "n", "decay": {"half_life": 0}, "weight": 1}]},
            "/boost/0/decay/half_life",
            "must be greater than 0",
        ),
        ({"boost": [{"field": "n", "decay": {"half_life": True}, "weight": 1}]}, "/boost/0/decay/half_life", ""),
        *(
            ({"boost": [{"field": "n", "decay": {"half_life": 1, "origin": origin}, "weight": 1}]}, at, "RFC 3339")
            for origin in (None, True, "soon", "2026-02-30", [1], 10**400)
            for at in ["/boost/0/decay/origin"]
        ),
        (
            {"boost": [{"field": "@created_at", "decay": {"half_life": 1, "origin": 5}, "weight": 1}]},
            "/boost/0/decay/origin",
            "a time for @created_at",
        ),
        ({"boost": [{"filter": {}, "weight": 100_001}]}, "/boost/0/weight", "100000"),
        ({"boost": [{"filter": {}, "weight": 1}] * 17}, "/boost", "16"),
        ({"boost": [{"filter": {}, "weight": 1}], "k": 201}, "/depth", "at least offset + k"),
        ({"boost": [{"filter": {}, "weight": 1}], "depth": 12, "offset": 3}, "/depth", "send a larger one"),
        ({"depth": 0}, "/depth", "1 to 10000"),
        ({"boost": [{"filter": {}, "weight": 1}], "mmr": {}}, "/boost", "leave one of them out"),
        ({"group_by": "@created_at"}, "/group_by", "filter or order chunks by it"),
        ({"mmr": {"lamda": 1}}, "/mmr/lamda", "try lambda instead"),
    ],
    ids=str,
)
def test_what_is_no_boost_is_refused(
    client: httpx.Client, path: str, query: dict[str, Any], pointer: str, remedy: str
) -> None:
    body = assert_refused(client.post(f"{path}/query", json=V | query), 400, "invalid", pointer)
    assert remedy in body["errors"][0]["detail"]
