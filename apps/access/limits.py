"""How many requests are let in: a minute by key and by address, and at a time by key.

Counts are those of all workers of a host, or of all hosts that share a Redis. Where nothing is limited, nothing is
counted.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Literal, NamedTuple, TypeAlias

from django.conf import settings

from apps.access.guard_rails import check_room
from apps.access.redis_counters import Counters, RedisCounters
from apps.access.requests import SAFE_METHODS, Principal, Refused
from apps.access.shared_counters import SECONDS, Hit, SharedCounters

Kind: TypeAlias = Literal["read", "write", "delete"]

_READING_POSTS = re.compile(
    r"/api/v1/(libraries/[^/]+/(query(/batch)?|chunks/(get|count|list|fields|facets))|keys/[^/]+/search-token)"
)
_DELETING_POSTS = re.compile(r"/api/v1/libraries/[^/]+/chunks/delete")
# A secret that is known to others must be changed whatever else is not written.
_CHANGES_OF_KEYS = re.compile(r"/api/v1/keys(/.*)?")
# Monitoring must get through, and files of pages cost nothing.
_UNLIMITED = ("/health", "/ready", "/metrics")
_API = "/api/v1/"
_AGENTS = "/mcp"


class Allowance(NamedTuple):
    """How many requests of a kind one client may make in a minute, under the name that they are counted by."""

    policy: str
    counted_by: str
    limit: int


class _Meter:
    """The counters of this process, once there is something to count."""

    shared: SharedCounters | None = None
    rates: Counters | None = None


def prepare(columns: int) -> SharedCounters:
    """Make the counters that processes forked from this one share, of which at most `columns` run at a time."""
    _Meter.shared = SharedCounters(columns, settings.THREADS)
    _Meter.rates = RedisCounters(settings.REDIS_URL, _Meter.shared) if settings.REDIS_URL else _Meter.shared
    return _Meter.shared


@lru_cache(maxsize=256)
def kind_of(method: str, path: str) -> Kind:
    """What a request does: queries and the like are reads, though they are posted, and so is making a search token,
    which is stored nowhere. What an agent's message asks for `admit_change` counts besides."""
    if method in SAFE_METHODS:
        return "read"
    if method == "DELETE" or (method == "POST" and _DELETING_POSTS.fullmatch(path)):
        return "delete"
    is_read = method == "POST" and (path == _AGENTS or _READING_POSTS.fullmatch(path))
    return "read" if is_read else "write"


def may_write(method: str, path: str) -> bool:
    """Whether a request may write, as far as can be said before its body is looked at."""
    return kind_of(method, path) != "read" or (path == _AGENTS and settings.MCP_WRITE)


def admit_change(principal: Principal, address: str, kind: Kind) -> None:
    """Count a change that a request asks for in its body alone, beside the request itself. Raise Refused."""
    if kind == "write":
        check_room()
    _spend(_allowances(principal, address, kind, _AGENTS))


def admitted(principal: Principal, address: str, method: str, path: str) -> AbstractContextManager[Mapping[str, str]]:
    """Let a request in, for as long as a `with` block of what this returns runs, which gives the headers that tell of
    its limits. Raise Refused, at once or when the block begins."""
    kind = kind_of(method, path)
    if kind == "write" and path.startswith(_API) and not _CHANGES_OF_KEYS.fullmatch(path):
        check_room()
    allowances = _allowances(principal, address, kind, path)
    most = settings.KEY_CONCURRENT_REQUESTS if principal.key_id else 0
    return _entered(principal, allowances, most) if most else nullcontext(_spend(allowances))


@contextmanager
def _entered(principal: Principal, allowances: list[Allowance], most: int) -> Iterator[Mapping[str, str]]:
    """As `admitted`, for a key that may have `most` requests at a time."""
    shared = _shared()
    with _one_step():
        headers = _spend(allowances)
        has_entered = shared.enter(principal.key_id, most)
    if not has_entered:
        detail = f"{most} requests of this key run already (limit VECTORDB_KEY_CONCURRENT_REQUESTS). Wait for one."
        raise Refused("rate_limited", detail, {"Retry-After": "1"})
    try:
        yield headers
    finally:
        shared.leave(principal.key_id)


def note_failed_login(address: str) -> None:
    """Count a key or a password that was refused; raise Refused where the address has had too many refused."""
    _limit_failed_logins(address, is_counted=True)


def check_failed_logins(address: str) -> None:
    """Raise Refused where the address has had too many keys or passwords refused. Count nothing."""
    _limit_failed_logins(address, is_counted=False)


def _limit_failed_logins(address: str, *, is_counted: bool) -> None:
    limit = settings.FAILED_LOGINS_PER_MINUTE
    if not limit:
        return
    hit = _rates().hit(f"logins:{_network(address)}", limit, is_counted=is_counted)
    if not hit.is_allowed:
        detail = f"Too many credentials of {address} were refused. Wait {hit.wait} s."
        raise Refused("rate_limited", detail, {"Retry-After": str(hit.wait)})


def _allowances(principal: Principal, address: str, kind: Kind, path: str) -> list[Allowance]:
    if kind == "read":
        policy, own = "reads", principal.reads_per_minute
        of_keys, of_addresses = settings.KEY_READS_PER_MINUTE, settings.ADDRESS_READS_PER_MINUTE
    else:
        policy, own = "writes", principal.writes_per_minute
        of_keys, of_addresses = settings.KEY_WRITES_PER_MINUTE, settings.ADDRESS_WRITES_PER_MINUTE
    found = []
    if principal.key_id and (own is not None or of_keys):
        limit = of_keys if own is None else own
        found.append(Allowance(policy, f"{policy}:{principal.key_id}", limit))
    if of_addresses:
        found.append(Allowance(f"address-{policy}", f"{policy}@{_network(address)}", of_addresses))
    return [] if found and (path in _UNLIMITED or path.startswith(settings.STATIC_URL)) else found


def _spend(allowances: list[Allowance]) -> dict[str, str]:
    """Count a request; return the headers of its answer, as the IETF's draft on RateLimit header fields has them."""
    if not allowances:
        return {}
    policies, states = [], []
    counted: list[tuple[str, int, Hit]] = []
    with _one_step():
        for policy, counted_by, limit in allowances:
            hit = _rates().hit(counted_by, limit)
            counted.append((policy, limit, hit))
            if not hit.is_allowed:
                break
    for policy, limit, hit in counted:
        policies.append(f'"{policy}";q={limit};w={SECONDS}')
        states.append(f'"{policy}";r={hit.remaining}' + (f";t={hit.wait}" if hit.wait else ""))
        if not hit.is_allowed:
            whose = "address" if policy.startswith("address") else "key"
            detail = f"This {whose} may make {limit} {policy.rpartition('-')[2]} a minute. Wait {hit.wait} s."
            headers = {"Retry-After": str(hit.wait), "RateLimit-Policy": policies[-1], "RateLimit": states[-1]}
            raise Refused("rate_limited", detail, headers)
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


def _shared() -> SharedCounters:
    # Under another server than `manage.py serve`, each process counts for itself.
    return _Meter.shared or prepare(1)


def _rates() -> Counters:
    _shared()
    assert _Meter.rates is not None
    return _Meter.rates


def _one_step() -> AbstractContextManager[None]:
    """For what one request counts in the memory of this host; Redis must not be waited for under a lock."""
    return _shared().locked if _rates() is _Meter.shared else nullcontext()


@lru_cache(maxsize=1024)
def _network(address: str) -> str:
    """What stands for one client: its address, of IPv6 the 64 bits that one client has all addresses of."""
    try:
        is_long = ip_address(address).version == 6
    except ValueError:
        return address
    return str(ip_network(f"{address}/64", strict=False)) if is_long else address
