"""What a server tells about itself: lines of requests, slow queries, metrics of all processes, recall."""

import base64
import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from apps.telemetry.instruments import Instrument
from tests.api.test_documented import rows
from tests.server import ROOT, Server, serving, until

DIMENSION, ROWS = 400, 1500
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
SECRETS = ("wanted-4711", "seen-4712", "0.4713", "hidden-4714")
MONITORING = ROOT / "docs" / "monitoring"


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that logs JSON, finds every batch slow, and samples every query."""
    options = {"LOG_LEVEL": "info", "LOG_FORMAT": "json", "SLOW_QUERY_MS": 1, "METRICS_LIBRARIES": 2, "RECALL_WATCH": 1}
    folder = tmp_path_factory.mktemp("observed") / "data"
    with serving(folder, **{f"VECTORDB_{name}": value for name, value in options.items()}) as server:
        with server.client() as client:
            make_library(client, "plain", 3, [[1, 0, i] for i in range(20)])
        yield server


@pytest.fixture
def client(observed: Server) -> Iterator[httpx.Client]:
    with observed.client() as client:
        yield client


def make_library(client: httpx.Client, library_id: str, dimension: int, vectors: Any, **options: Any) -> None:
    body = {"id": library_id, "name": "Test", "dimension": dimension} | options
    client.post("/libraries", json=body).raise_for_status()
    chunks = [
        {"id": f"c{i}", "text": "some text", "metadata": {"n": i}, "embedding": vector}
        for i, vector in enumerate(vectors)
    ]
    client.post(f"/libraries/{library_id}/chunks", json={"chunks": chunks}).raise_for_status()


def lines(server: Server, **having: Any) -> list[dict[str, Any]]:
    """The lines of the log that have these fields; all lines but those of the greeting must be JSON."""
    found = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if having.items() <= line.items()]


def line_of(server: Server, request_id: str) -> dict[str, Any]:
    """The one line of a request. It is written when the answer has been sent."""
    until(lambda: lines(server, event="request", request_id=request_id), f"{request_id} is logged")
    [line] = lines(server, event="request", request_id=request_id)
    return line


def scrape(server: Server) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples by name and by the values of their labels, in order of the labels' names."""
    text = httpx.get(f"{server.url}/metrics", headers=server.authorization).raise_for_status().text
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        found.setdefault(family.name, {})
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def queries_counted(server: Server, path: str = "query") -> float:
    route = "/api/v1/libraries/{library_id}/" + path
    return scrape(server)["vectordb_requests_total"].get(("POST", route, "200"), 0)


def test_a_query_has_one_line_with_all_documented_fields(observed: Server, client: httpx.Client) -> None:
    headers = {"X-Request-ID": "one-line", "traceparent": PARENT}
    answer = client.post("/libraries/plain/query", json={"vector": [1, 0, 0]}, headers=headers)
    line = line_of(observed, "one-line")
    documented = {name for name, cells in rows("observability.md").items() if len(cells) == 1}
    assert set(line) - {"timestamp", "level", "event"} == documented - {"queries", "shape", "stages"}
    assert line["route"] == "/api/v1/libraries/{library_id}/query"
    assert (line["method"], line["status"], line["library"], line["level"]) == ("POST", 200, "plain", "info")
    meta = answer.json()["meta"]
    assert (line["scanned"], line["plan"]) == (meta["scanned"], meta["plan"])
    assert (line["bytes_in"], line["bytes_out"]) == (len(answer.request.content), len(answer.content))
    assert line["ms"] > 0
    assert line["address"] == "127.0.0.1"
    # The trace goes on, with this request as its part.
    assert line["trace_id"] == TRACE
    assert answer.headers["traceresponse"] == f"00-{TRACE}-{line['span_id']}-01"


@pytest.mark.parametrize(
    ("path", "route", "library", "status"),
    [
        ("/api/v1/libraries/plain/chunks/c1", "/api/v1/libraries/{library_id}/chunks/{chunk_id}", "plain", 200),
        ("/api/v1/libraries/absent/stats", "/api/v1/libraries/{library_id}/stats", "absent", 404),
        ("/api/v1/nothing", "(none)", "", 404),
        ("/health", "/health", "", 200),
        ("/static/admin/css/base.css", "/static/", "", 200),
    ],
)
def test_lines_name_the_pattern_of_the_path(
    observed: Server, client: httpx.Client, path: str, route: str, library: str, status: int
) -> None:
    client.get(observed.url + path, headers={"X-Request-ID": path})
    line = line_of(observed, path)
    assert (line["route"], line["library"], line["status"]) == (route, library, status)


def test_no_client_begins_a_line_of_the_log(observed: Server, client: httpx.Client) -> None:
    forged = '\n{"event": "request", "request_id": "forged"}\x1b[2J\u2028'
    for i, path in enumerate((f"/libraries/{forged}", f"/libraries/plain/chunks/{forged}", f"/{forged}")):
        url = httpx.URL(observed.api + "".join(f"%{byte:02x}" if byte not in b"/" else "/" for byte in path.encode()))
        client.get(url, headers={"X-Request-ID": f"injection-{i}", "traceparent": f"{PARENT} forged"})
        line_of(observed, f"injection-{i}")
    client.post("/libraries/plain/query", content=b"{", headers={"X-Request-ID": "{", "Host": "evil{"})
    log = observed.log.read_text()
    assert not lines(observed, request_id="forged")
    assert all(line.isprintable() for line in log.splitlines())
    assert "\x1b" not in log


def test_a_slow_query_is_told_by_its_shape_alone(observed: Server, client: httpx.Client) -> None:
    query = {
        "text": f"{SECRETS[0]} {SECRETS[1]}",
        "vector": [float(SECRETS[2]), 0, 1],
        "mode": "hybrid",
        "k": 7,
        "filter": {
            "n": {"$gte": -4711},
            "name": {"$in": [SECRETS[3], "x"]},
            "$not": {"tag": {"$contains": SECRETS[3]}},
        },
        "group_by": "topic",
    }
    body = {"queries": [query] * 64}
    client.post("/libraries/plain/query/batch", json=body, headers={"X-Request-ID": "slow"}).raise_for_status()
    until(lambda: lines(observed, event="slow query", request_id="slow"), "it is told")
    [line] = lines(observed, event="slow query", request_id="slow")
    assert line["queries"] == 64
    shape = line["shape"]
    assert (shape["by"], shape["mode"], shape["k"], shape["group_by"]) == ("vector+text", "hybrid", 7, "topic")
    filters = [{"n": "range"}, {"name": "$in 2"}, {"$not": {"tag": "$contains"}}]
    assert shape["filter"] == {"$and": filters}
    assert {"search", "filter", "rows"} <= line["stages"].keys()
    log = observed.log.read_text()
    assert not [secret for secret in (*SECRETS, "-4711") if secret in log]


def test_metrics_are_those_that_are_documented(observed: Server) -> None:
    text = httpx.get(f"{observed.url}/metrics", headers=observed.authorization).raise_for_status().text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    documented = rows("observability.md", beginning="vectordb_")
    suffix = {"counter": "_total", "gauge": "", "histogram": ""}
    assert {name + suffix[family.type]: family.type for name, family in families.items()} == {
        name: cells[0] for name, cells in documented.items()
    }
    for name, one in Instrument.by_name.items():
        assert documented[name][1:] == [", ".join(one.labels), one.meaning]
        [family] = [family for family in families.values() if name in (family.name, f"{family.name}_total")]
        assert family.documentation == one.meaning
        assert all(set(sample.labels) - {"le"} == set(one.labels) for sample in family.samples)


def test_metrics_are_told_where_they_cannot_be_written(observed: Server) -> None:
    """As where memory for files is full: something else has the names of what workers are to write."""
    open_files = [Path(file.path) for worker in observed.workers() for file in worker.open_files()]
    drafts = [path.with_suffix(".draft") for path in open_files if path.match("metrics/worker-*.lock")]
    assert len(drafts) == 2

    def take(draft: Path) -> bool:
        with suppress(FileExistsError):  # it is being written
            draft.mkdir()
        return draft.is_dir()

    try:
        until(lambda: all(map(take, drafts)), "their names are taken")
        assert scrape(observed)["vectordb_database_up"] == {(): 1}
        until(lambda: "metrics of this process cannot be shared" in observed.log.read_text(), "it is said in the log")
        assert "Traceback" not in observed.log.read_text()
    finally:
        for draft in drafts:
            draft.rmdir()


def test_counts_are_those_of_all_workers(observed: Server) -> None:
    # By a route that no other test here asks: what another worker counted within the last second may come late.
    assert queries_counted(observed, "chunks/facets") == 0
    with observed.clients_of_each_worker(1) as clients:
        for client in clients:
            for _ in range(5):
                client.post("/libraries/plain/chunks/facets", json={"field": "n"}).raise_for_status()
    until(lambda: queries_counted(observed, "chunks/facets") == 10, "both workers are counted")
    found = scrape(observed)
    assert {labels[0] for labels in found["vectordb_connections"]} == {"worker-0", "worker-1"}
    assert found["vectordb_library_requests_total"][("plain",)] >= 10
    assert found["vectordb_database_up"] == {(): 1}
    assert found["vectordb_disk_free_bytes"][()] > 0
    until(lambda: scrape(observed)["vectordb_maintenance_running"] == {(): 1}, "maintenance is counted too")


def test_no_counter_steps_back_when_workers_are_killed(observed: Server) -> None:
    with observed.client() as client:
        for _ in range(4):
            client.post("/libraries/plain/query", json={"vector": [1, 0, 0]}).raise_for_status()
    starts = scrape(observed)["vectordb_process_starts_total"][("worker",)]
    until(lambda: scrape(observed)["vectordb_library_requests_total"][("plain",)] >= 4, "they are counted")
    counted, asked = [queries_counted(observed)], 2
    for _ in range(asked):
        worker = observed.workers()[0]
        worker.kill()

        # The master may not have seen yet that it is dead; whoever answers knows what it had counted.
        def is_replaced(dead: int = worker.pid) -> bool:
            try:
                counted.append(queries_counted(observed))
            except httpx.TransportError:
                return False
            workers = [process.pid for process in observed.workers()]
            return dead not in workers and len(workers) == 2

        until(is_replaced, "another worker is there")
    assert counted == sorted(counted)
    until(
        lambda: scrape(observed)["vectordb_process_starts_total"][("worker",)] == starts + asked,
        "the new ones are counted",
    )
    assert len(scrape(observed)["vectordb_connections"]) == 2


def test_the_time_of_the_last_backup_is_a_metric(observed: Server, client: httpx.Client) -> None:
    assert scrape(observed)["vectordb_last_backup_timestamp_seconds"] == {}
    before = time.time()
    job = client.post("/backups").raise_for_status().json()["id"]
    until(lambda: client.get(f"/jobs/{job}").json()["state"] == "done", "the backup is made")
    made = scrape(observed)["vectordb_last_backup_timestamp_seconds"][()]
    assert before <= made <= time.time()


def test_dashboard_and_alerts_name_metrics_that_there_are(observed: Server) -> None:
    names = set(scrape(observed))
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    rules = yaml.safe_load((MONITORING / "prometheus-alerts.yml").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    expressions += [rule["expr"] for rule in alerts]
    assert len(expressions) > 50
    assert all(rule["alert"].startswith("Vectordb") and rule["annotations"]["summary"] for rule in alerts)
    known = names | {f"{name}{end}" for name in names for end in ("_bucket", "_sum", "_count", "_total")}
    used = {name for expression in expressions for name in re.findall(r"vectordb_\w+", expression)}
    assert used <= known


def test_the_recall_of_live_queries_is_watched(observed: Server, client: httpx.Client) -> None:
    vectors = np.random.default_rng(0).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    encoded = [base64.b64encode(vector.tobytes()).decode() for vector in vectors]
    ways = {"poor": {"probes": 1, "shortlist": 1}, "good": {"probes": 4096, "shortlist": 1450}}
    for library_id in ways:
        make_library(client, library_id, DIMENSION, encoded, index_type="lsh")
    for library_id, search_params in ways.items():
        until(lambda library_id=library_id: stats(client, library_id)["index"]["rows_indexed"] == ROWS, "it is indexed")
        assert stats(client, library_id)["recall"] is None
        for options in ({"boost": [{"filter": {"n": 1}, "weight": 1}]}, {"mmr": {}}, {"group_by": "n"}, {"offset": 1}):
            unwatched = {"vector": vectors[0].tolist(), "search_params": search_params, **options}
            client.post(f"/libraries/{library_id}/query", json=unwatched).raise_for_status()
        for i in range(30):
            query = {"vector": (vectors[i] + 1).tolist(), "search_params": search_params, "filter": {"n": {"$gte": 0}}}
            answer = client.post(f"/libraries/{library_id}/query", json=query).raise_for_status().json()
            assert answer["meta"]["index"] == "lsh"
        until(lambda library_id=library_id: sampled(client, library_id) == 30, "its queries are repeated")
    assert stats(client, "poor")["recall"]["recall_at_k"] < 0.9
    assert stats(client, "good")["recall"]["recall_at_k"] == 1
    assert sampled(client, "poor") == sampled(client, "good") == 30
    found = scrape(observed)
    assert found["vectordb_recall_lowest"][()] == found["vectordb_library_recall_at_k"][("poor",)] < 0.9
    until(lambda: scrape(observed)["vectordb_recall_samples_total"][("compared",)] >= 60, "all are counted")
    index = stats(client, "good")["index"]
    assert sum(one["mapped"] + one["private"] for one in index["memory"].values()) == index["bytes"]
    assert index["memory"]["vectors"]["mapped"] >= vectors.nbytes


def test_rows_that_a_search_token_may_not_see_are_not_missed(observed: Server, client: httpx.Client) -> None:
    vectors = np.random.default_rng(1).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    encoded = [base64.b64encode(vector.tobytes()).decode() for vector in vectors]
    make_library(client, "hidden", DIMENSION, encoded, index_type="lsh")
    until(lambda: stats(client, "hidden")["index"]["rows_indexed"] == ROWS, "it is indexed")
    key = client.post("/keys", json={"name": "one", "scopes": ["read"]}).raise_for_status().json()
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    claims = {"libraries": ["hidden"], "filter": {"n": {"$gte": 30}}, "expires_at": ends}
    token = client.post(f"/keys/{key['id']}/search-token", json=claims).raise_for_status().json()["token"]
    for vector in vectors[:30]:
        query = {"vector": vector.tolist(), "search_params": {"probes": 4096, "shortlist": 1450}}
        answer = httpx.post(
            f"{observed.api}/libraries/hidden/query", json=query, headers={"Authorization": f"Bearer {token}"}
        )
        assert answer.raise_for_status().json()["meta"]["index"] == "lsh"
    until(lambda: sampled(client, "hidden") == 30, "its queries are repeated")
    assert stats(client, "hidden")["recall"]["recall_at_k"] == 1


def stats(client: httpx.Client, library_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/libraries/{library_id}/stats").raise_for_status().json()
    return found


def sampled(client: httpx.Client, library_id: str) -> int:
    recall = stats(client, library_id)["recall"]
    return 0 if recall is None else int(recall["samples"])
