"""Who may do what: every route and method, for every caller. A route that has no row here fails the first test."""

import re
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from apps.access.authorization import absent_library
from apps.api.v1.base import ApiView
from tests.access.callers import LIBRARY, everybody
from tests.server import Server

Need = Literal["nothing", "search", "read", "write", "admin", "server", "login"]

# What each method of a route needs: nothing, a scope, the scope admin for all libraries, or a login to the admin.
TABLE: dict[str, dict[str, Need]] = {
    "": {"GET": "nothing"},
    "health": {"GET": "nothing"},
    "ready": {"GET": "nothing"},
    "metrics": {"GET": "server"},
    "api/schema": {"GET": "nothing"},
    "api/docs": {"GET": "nothing"},
    "api/login": {"GET": "nothing"},
    "api/logout": {"GET": "nothing"},
    "mcp": {"POST": "search"},
    "api/v1": {"GET": "nothing"},
    "admin": {"GET": "nothing"},
    "api/v1/": {"GET": "read"},
    "api/v1/audit": {"GET": "server"},
    "api/v1/backups": {"GET": "server", "POST": "server"},
    "api/v1/backups/<str:backup_id>": {"GET": "server", "DELETE": "server"},
    "api/v1/jobs": {"GET": "read"},
    "api/v1/jobs/<str:job_id>": {"GET": "read", "DELETE": "write"},
    "api/v1/keys": {"GET": "server", "POST": "server"},
    "api/v1/keys/<str:key_id>": {"GET": "server", "PATCH": "server", "DELETE": "server"},
    "api/v1/keys/<str:key_id>/rotate": {"POST": "server"},
    "api/v1/keys/<str:key_id>/search-token": {"POST": "server"},
    "api/v1/libraries": {"GET": "read", "POST": "admin"},
    "api/v1/libraries/<str:library_id>": {"GET": "read", "PATCH": "write", "DELETE": "admin"},
    "api/v1/libraries/<str:library_id>/stats": {"GET": "read"},
    "api/v1/libraries/<str:library_id>/reindex": {"POST": "write"},
    "api/v1/libraries/<str:library_id>/reembed": {"GET": "read", "POST": "write", "DELETE": "write"},
    "api/v1/libraries/<str:library_id>/export": {"GET": "read"},
    "api/v1/libraries/<str:library_id>/import": {"POST": "write"},
    "api/v1/libraries/<str:library_id>/query": {"POST": "search"},
    "api/v1/libraries/<str:library_id>/query/batch": {"POST": "search"},
    "api/v1/libraries/<str:library_id>/documents": {"GET": "read", "POST": "write"},
    "api/v1/libraries/<str:library_id>/documents/batch": {"POST": "write"},
    "api/v1/libraries/<str:library_id>/documents/<path:document_id>": {
        "GET": "read",
        "PUT": "write",
        "PATCH": "write",
        "DELETE": "write",
    },
    "api/v1/libraries/<str:library_id>/chunks": {"GET": "read", "POST": "write"},
    "api/v1/libraries/<str:library_id>/chunks/get": {"POST": "read"},
    "api/v1/libraries/<str:library_id>/chunks/delete": {"POST": "write"},
    "api/v1/libraries/<str:library_id>/chunks/update": {"POST": "write"},
    "api/v1/libraries/<str:library_id>/chunks/count": {"POST": "search"},
    "api/v1/libraries/<str:library_id>/chunks/list": {"POST": "read"},
    "api/v1/libraries/<str:library_id>/chunks/fields": {"POST": "read"},
    "api/v1/libraries/<str:library_id>/chunks/facets": {"POST": "read"},
    "api/v1/libraries/<str:library_id>/chunks/<path:chunk_id>": {"GET": "read", "PATCH": "write", "DELETE": "write"},
}
_IDS = {
    "library_id": LIBRARY,
    "document_id": "doc",
    "chunk_id": "kept",
    "key_id": "nobodys",
    "job_id": "absent",
    "backup_id": "absent",
}
_SCOPES = ("search", "read", "write", "admin", "server")
_SAFE = ("GET", "HEAD", "OPTIONS")


def routes(patterns: Any = None, before: str = "") -> Iterator[tuple[str, Any]]:
    """All routes of the server, and their views; those of the admin are one of Django's own."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern):
            yield route, pattern.callback


ROUTES = dict(routes())
ADMIN = [route for route in ROUTES if route.startswith("admin/")]


def methods(view: Any) -> set[str]:
    """The methods that a view has of its own; of a page, GET."""
    cls = getattr(view, "cls", None)
    if cls is None or not issubclass(cls, ApiView):
        return {"GET"}
    return {name.upper() for name in cls.http_method_names if name in vars(cls)} - {"OPTIONS"}


def test_every_route_has_a_row() -> None:
    assert {route: methods(view) for route, view in ROUTES.items() if route not in ADMIN} == {
        route: set(needs) for route, needs in TABLE.items()
    }


@pytest.fixture(scope="module")
def callers(server: Server) -> dict[str, dict[str, str]]:
    """The headers of each caller."""
    with server.client() as client:
        return everybody(server, client)


def expected(need: Need, method: str, path: str, caller: str) -> str:
    """What becomes of a request: it is let `in`, refused with 401 or 403, or told that there is no such library."""
    if need == "nothing":
        return "in"
    known = re.match(r"(session, )?(search|read|write|admin|nothing)\b", caller)
    if caller == "session, without CSRF":
        # Nobody is told of a library by an answer to a change that a foreign page asked for.
        if method not in _SAFE:
            return "403"
        scope = "admin"
    elif known is None or known[2] == "nothing":
        return "401"
    else:
        scope = known[2]
    if "of another" in caller and f"/libraries/{LIBRARY}" in path:
        return "absent"
    is_limited = ", of " in caller
    wanted = "admin" if need == "server" else need
    if _SCOPES.index(scope) < _SCOPES.index(wanted) or (need == "server" and is_limited):
        return "403"
    return "in"


def outcome(answer: httpx.Response) -> str:
    assert answer.status_code < 500, answer.text
    if answer.status_code in (401, 403):
        assert (answer.status_code == 401) == ("WWW-Authenticate" in answer.headers)
        return str(answer.status_code)
    is_absent = answer.status_code == 404 and answer.json()["detail"] == absent_library(LIBRARY)
    return "absent" if is_absent else "in"


@pytest.fixture(scope="module")
def anyone(server: Server) -> Iterator[httpx.Client]:
    """A client that says nothing of its own."""
    with httpx.Client(base_url=server.url, trust_env=False, verify=False, timeout=60) as client:
        yield client


def ask(
    anyone: httpx.Client, method: str, path: str, headers: dict[str, str], content_type: str = "application/json"
) -> httpx.Response:
    """A request that changes nothing where it is let in: it is invalid, or for another state than the present one."""
    body = b'{"nonsense": 1}' if method in ("POST", "PUT", "PATCH") else None
    headers = headers | {"If-Match": '"another"'} | ({"Content-Type": content_type} if body else {})
    return anyone.request(method, f"/{path}", content=body, headers=headers)


@pytest.mark.parametrize("route", TABLE)
def test_each_caller_may_do_what_its_scopes_say_and_no_more(
    anyone: httpx.Client, callers: dict[str, dict[str, str]], route: str
) -> None:
    path = re.sub(r"<\w+:(\w+)>", lambda found: _IDS[found[1]], route)
    doors = ["application/json", "application/json; charset=utf-8"]
    found, wanted = {}, {}
    for method, need in TABLE[route].items():
        for caller, headers in callers.items():
            for door in doors if need == "search" else doors[:1]:
                found[method, caller, door] = outcome(ask(anyone, method, path, headers, door))
                wanted[method, caller, door] = expected(need, method, f"/{path}", caller)
    assert found == wanted


def test_the_admin_asks_for_a_login_whatever_key_is_sent(
    anyone: httpx.Client, callers: dict[str, dict[str, str]]
) -> None:
    for route in ADMIN:
        path = re.sub(r"<\w+:\w+>|\(\?P<\w+>[^)]*\)|[\^$]", "1", route)
        for caller in ("no key", "admin", "session, read", "a made up session"):
            answer = anyone.get(f"/{path}", headers=callers[caller])
            if route not in ("admin/login/", "admin/logout/"):
                assert (answer.status_code, answer.headers["Location"].partition("?")[0]) == (302, "/admin/login/")
    assert len(ADMIN) > 20


def test_files_of_pages_need_nothing(anyone: httpx.Client) -> None:
    assert anyone.get("/static/admin/css/base.css").status_code == 200


@pytest.mark.parametrize("path", ["nowhere", "api/v1/nowhere", "api/v2/libraries", "api/schema/", "metrics/x"])
def test_a_path_that_leads_nowhere_says_so_to_those_who_may_ask(
    anyone: httpx.Client, callers: dict[str, dict[str, str]], path: str
) -> None:
    for caller, status in {
        "no key": 401,
        "a revoked key": 401,
        "search": 404,
        "read": 404,
        "session, read": 404,
    }.items():
        for method in ("GET", "POST"):
            answer = anyone.request(method, f"/{path}", headers=callers[caller])
            assert (caller, answer.status_code) == (caller, status), answer.text


def test_lists_show_what_the_key_may_see(client: httpx.Client, callers: dict[str, dict[str, str]]) -> None:
    def seen(caller: str) -> list[str]:
        ids, cursor = [], ""
        while True:
            page = client.get(f"/libraries?limit=2{cursor}", headers=callers[caller]).raise_for_status().json()
            ids += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                return ids
            cursor = f"&cursor={page['next_cursor']}"

    assert {LIBRARY, "elsewhere"} <= set(seen("read")) == set(seen("session, read"))
    assert seen("write, of the library") == seen("admin, of a prefix") == [LIBRARY]
    assert seen("admin, of another prefix") == []
