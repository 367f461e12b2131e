"""Everybody who may ask a server: with every kind of key, search token and session, good or not."""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from apps.access.credentials import new_key
from tests.server import Server

LIBRARY, ELSEWHERE = "access", "elsewhere"

_MAKE_USERS = """
from django.contrib.auth.models import Group, Permission, User
User.objects.create_superuser("root", password={password!r})
reader = User.objects.create_user("reader", password={password!r})
readers = Group.objects.create(name="readers")
readers.permissions.add(Permission.objects.get(content_type__app_label="access", codename="scope_read"))
reader.groups.add(readers)
User.objects.create_user("nobody", password={password!r})
"""


def in_hours(hours: float) -> str:
    """A time from now on, as requests have it."""
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


def mistyped(key: str) -> str:
    """A key with another last character, and so with a wrong checksum."""
    return key[:-1] + ("A" if key[-1] != "A" else "B")


def make_key(client: httpx.Client, *scopes: str, **others: Any) -> dict[str, Any]:
    """A new key, as the API shows it this once."""
    made: dict[str, Any] = (
        client.post("/keys", json={"name": "Test", "scopes": scopes, **others}).raise_for_status().json()
    )
    return made


def make_token(client: httpx.Client, key: Mapping[str, Any], **allowed: Any) -> str:
    """A search token of a key, made with the key itself."""
    body = {"libraries": [LIBRARY], "expires_at": in_hours(1)} | allowed
    made = client.post(f"/keys/{key['id']}/search-token", json=body, headers=bearer(key["key"]))
    return str(made.raise_for_status().json()["token"])


def bearer(credential: str) -> dict[str, str]:
    """The header that has a key or a token."""
    return {"Authorization": f"Bearer {credential}"}


@contextmanager
def log_in(server: Server, user: str, password: str) -> Iterator[httpx.Client]:
    """A browser that is logged in."""
    with httpx.Client(base_url=server.url, trust_env=False, verify=False) as browser:
        browser.get("/api/login")
        typed = {"username": user, "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        assert browser.post("/api/login", data=typed).status_code == 302
        yield browser


def _session(server: Server, user: str, password: str) -> dict[str, str]:
    """The headers of a browser that is logged in, as the pages' script sends them."""
    with log_in(server, user, password) as browser:
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        return {"Cookie": cookie, "X-CSRFToken": browser.cookies["csrftoken"]}


def everybody(server: Server, client: httpx.Client) -> dict[str, dict[str, str]]:
    """The headers of each caller, by name."""
    password = secrets.token_urlsafe()
    ended = server.manage("shell", "-c", _MAKE_USERS.format(password=password))
    assert ended.returncode == 0, ended.stderr
    for library in (LIBRARY, ELSEWHERE):
        client.post("/libraries", json={"id": library, "name": library, "dimension": 2}).raise_for_status()
    document = {"id": "doc", "chunks": [{"id": "kept", "text": "kept", "embedding": [1, 0]}]}
    client.post(f"/libraries/{LIBRARY}/documents", json=document).raise_for_status()

    read = make_key(client, "read")
    revoked, rotated, overlapping = make_key(client, "admin"), make_key(client, "admin"), make_key(client, "admin")
    tokens = {name: make_token(client, key) for name, key in (("revoked", revoked), ("rotated", rotated))}
    client.delete(f"/keys/{revoked['id']}").raise_for_status()
    new = client.post(f"/keys/{rotated['id']}/rotate", json={"overlap_seconds": 0}).raise_for_status().json()
    client.post(f"/keys/{overlapping['id']}/rotate", json={"overlap_seconds": 3600}).raise_for_status()
    token = make_token(client, read)
    user = _session(server, "root", password)
    return {
        "no key": {},
        "no key but something": bearer("something"),
        "another scheme": {"Authorization": "Basic YWxpY2U6c2VjcmV0"},
        "a mistyped key": bearer(mistyped(read["key"])),
        "a key with another secret": bearer(_with_another_secret(read["key"])),
        "an expired key": bearer(make_key(client, "admin", expires_at=in_hours(-1))["key"]),
        "a revoked key": bearer(revoked["key"]),
        "the secret before a rotation": bearer(rotated["key"]),
        "a search token of a revoked key": bearer(tokens["revoked"]),
        "a search token of a rotated key": bearer(tokens["rotated"]),
        "a search token that was changed": bearer(re.sub(r"_[A-Za-z0-9-]", "_A", token[:20]) + token[20:-2] + "AA"),
        "read": bearer(read["key"]),
        "read, in the other header": {"X-API-Key": read["key"]},
        "write": bearer(make_key(client, "write")["key"]),
        "admin": bearer(make_key(client, "admin")["key"]),
        "write, of the library": bearer(make_key(client, "write", libraries=[LIBRARY])["key"]),
        "admin, of a prefix": bearer(make_key(client, "admin", libraries=["nothing", "acc*"])["key"]),
        "write, of another library": bearer(make_key(client, "write", libraries=[ELSEWHERE])["key"]),
        "admin, of another prefix": bearer(make_key(client, "admin", libraries=["ACC*", "accessory*"])["key"]),
        "admin, rotated": bearer(new["key"]),
        "admin, the secret before a rotation with overlap": bearer(overlapping["key"]),
        "search": bearer(token),
        "search, of another library": bearer(make_token(client, read, libraries=[ELSEWHERE])),
        "session, admin": user,
        "session, without CSRF": {"Cookie": user["Cookie"]},
        "session, read": _session(server, "reader", password),
        "session, nothing": _session(server, "nobody", password),
        "a made up session": {"Cookie": "sessionid=0123456789abcdef0123456789abcdef"},
        "a revoked key with a good session": user | bearer(revoked["key"]),
    }


def _with_another_secret(key: str) -> str:
    return new_key(key.split("_")[1])
