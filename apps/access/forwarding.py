"""What a reverse proxy says of a request that it passes on, and the path that it has in front of the server's own.

Who connects is believed about X-Forwarded-For, -Proto and -Host only where VECTORDB_TRUSTED_PROXIES has its address.
From anybody else these headers say nothing: they can be made up.
"""

from collections.abc import Iterable, MutableMapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, TypeAlias

from django.conf import settings

# Names and values, as ASGI has them.
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]


def apply_forwarding(scope: MutableMapping[str, Any]) -> None:
    """Give ASGI's `scope` the client's address, the scheme and the host that a trusted proxy names, and the path
    without VECTORDB_BASE_PATH in front."""
    base = settings.BASE_PATH
    if base and (scope["path"] == base or scope["path"].startswith(f"{base}/")):
        scope["path"] = scope["path"][len(base) :] or "/"
    if scope["client"] is None:
        # It has hung up, and the system does not know any more who it was.
        scope["client"] = ("", 0)
    if settings.TRUSTED_PROXIES and _is_trusted(scope["client"][0]):
        _believe(scope)


def address_of(peer: str, headers: Headers) -> str:
    """Return the client's address that a trusted proxy at `peer` names, else `peer`."""
    if not settings.TRUSTED_PROXIES or not _is_trusted(peer):
        return peer
    return _client(peer, _forwarded(headers).get(b"x-forwarded-for", "").split(","))


def _forwarded(headers: Headers) -> dict[bytes, str]:
    forwarded: dict[bytes, str] = {}
    for name, value in headers:
        if name.startswith(b"x-forwarded-"):
            before = f"{forwarded[name]}," if name in forwarded else ""
            forwarded[name] = before + value.decode("latin-1")
    return forwarded


def _believe(scope: MutableMapping[str, Any]) -> None:
    forwarded = _forwarded(scope["headers"])
    scope["client"] = (_client(scope["client"][0], forwarded.get(b"x-forwarded-for", "").split(",")), 0)
    # Of several values the last one is that of the proxy that connects.
    scheme = forwarded.get(b"x-forwarded-proto", "").rpartition(",")[2].strip().lower()
    if scheme in ("http", "https"):
        scope["scheme"] = scheme
    if host := forwarded.get(b"x-forwarded-host", "").rpartition(",")[2].strip():
        others = [header for header in scope["headers"] if header[0] != b"host"]
        scope["headers"] = [*others, (b"host", host.encode("latin-1"))]


def _client(peer: str, chain: Iterable[str]) -> str:
    """The first address, from the server's side on, that is no trusted proxy: what lies behind it may be made up."""
    for part in reversed(list(chain)):
        address = _parse(part.strip())
        if not _is_trusted(peer) or address is None:
            break
        peer = str(address)
    return peer


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """The address in an entry of X-Forwarded-For, which may have a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return ip_address(text)
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _is_trusted(address: str) -> bool:
    found = _parse(address)
    return found is not None and any(found in network for network in settings.TRUSTED_PROXIES)
