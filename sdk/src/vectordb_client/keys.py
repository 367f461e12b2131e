"""API keys and search tokens, and the trail of who changed what; they need a key for everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from vectordb_client import _routes as routes
from vectordb_client import types
from vectordb_client._binding import Async, Pages, Resource, Sync, listing, operation
from vectordb_client._bodies import to_list
from vectordb_client._core import UNSET, Steps, build_request, without_none, without_unset
from vectordb_client._rows import to_rfc3339
from vectordb_client.filters import FilterLike, to_dict
from vectordb_client.types import AuditEntry, KeyInfo, NewKey, Page, SearchToken

Scope = Literal["read", "write", "admin"]


class _Keys(Resource):
    """The API keys of the server."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @operation
    def create(
        self,
        name: str,
        *,
        scopes: Sequence[Scope],
        libraries: Sequence[str] | None = None,
        expires_at: datetime | str | None = None,
        limits: Mapping[str, int | None] | None = None,
    ) -> Steps[NewKey]:
        """Make a key; its secret is in `key` of the result, this once.

        `libraries` are ids, or beginnings of ids with an asterisk behind; None is for all. `limits` has
        `reads_per_minute` and `writes_per_minute`.

        >>> website = client.keys.create("website", scopes=["read"], libraries=["notes"])
        >>> website.scopes
        ('read',)
        """
        body = without_none(
            name=name,
            scopes=to_list(scopes),
            libraries=to_list(libraries),
            expires_at=to_rfc3339(expires_at),
            limits=limits,
        )
        answer = yield from self._session.call(build_request(routes.create_key, body=body))
        return types.parse(NewKey, answer.json())

    @operation
    def get(self, id: str) -> Steps[KeyInfo]:
        """A key without its secret.

        >>> client.keys.get(website.id).name
        'website'
        """
        answer = yield from self._session.call(build_request(routes.get_key, id))
        return types.parse(KeyInfo, answer.json())

    @listing
    def list(self, *, page_size: int = 500) -> Pages[KeyInfo]:
        """All keys by creation, without secrets.

        >>> [key.name for key in client.keys.list()]
        ['admin', 'website']
        """

        def page(cursor: str | None) -> Steps[Page[KeyInfo]]:
            request = build_request(routes.list_keys, query={"limit": page_size, "cursor": cursor})
            answer = (yield from self._session.call(request)).json()
            return Page([types.parse(KeyInfo, item) for item in answer["items"]], answer["next_cursor"])

        return page

    @operation
    def update(
        self,
        id: str,
        *,
        name: str | Any = UNSET,
        scopes: Sequence[Scope] | Any = UNSET,
        libraries: Sequence[str] | Any | None = UNSET,
        expires_at: datetime | str | Any | None = UNSET,
        limits: Mapping[str, int | None] | Any = UNSET,
    ) -> Steps[KeyInfo]:
        """Change a key; what is not given stays.

        >>> client.keys.update(website.id, name="site").name
        'site'
        """
        body = without_unset(
            name=name, scopes=scopes, libraries=libraries, expires_at=to_rfc3339(expires_at), limits=limits
        )
        answer = yield from self._session.call(build_request(routes.update_key, id, body=body))
        return types.parse(KeyInfo, answer.json())

    @operation
    def rotate(self, id: str, *, overlap_seconds: int = 0) -> Steps[NewKey]:
        """Give a key another secret; the present one is good for `overlap_seconds` more.

        >>> client.keys.rotate(website.id, overlap_seconds=60).key.startswith("vdb_")
        True
        """
        body = {"overlap_seconds": overlap_seconds}
        answer = yield from self._session.call(build_request(routes.rotate_key, id, body=body))
        return types.parse(NewKey, answer.json())

    @operation
    def search_token(
        self,
        id: str,
        *,
        libraries: Sequence[str],
        expires_at: datetime | str,
        filter: FilterLike | None = None,
        include: Sequence[str] | None = None,
    ) -> Steps[SearchToken]:
        """A token that queries and counts in these libraries, under a filter, for a day at most; for browsers.

        >>> hour = datetime.now(timezone.utc) + timedelta(hours=1)
        >>> client.keys.search_token(website.id, libraries=["notes"], filter=F("tenant") == 7, expires_at=hour)
        SearchToken(expires_at=...)
        """
        body = {
            **without_none(libraries=to_list(libraries), include=to_list(include)),
            **({} if filter is None else {"filter": to_dict(filter)}),
            "expires_at": to_rfc3339(expires_at),
        }
        answer = yield from self._session.call(build_request(routes.create_search_token, id, body=body))
        return types.parse(SearchToken, answer.json())

    @operation
    def revoke(self, id: str) -> Steps[None]:
        """Revoke a key, at once.

        >>> client.keys.revoke(website.id)
        """
        yield from self._session.call(build_request(routes.revoke_key, id))


class Keys(Sync, _Keys):
    __doc__ = _Keys.__doc__


class AsyncKeys(Async, _Keys):
    __doc__ = _Keys.__doc__


class _Audit(Resource):
    """Who changed what, when, how much."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @listing
    def list(
        self,
        *,
        library: str | None = None,
        key_id: str | None = None,
        since: datetime | str | None = None,
        page_size: int = 500,
    ) -> Pages[AuditEntry]:
        """Changes in their order, of a library, by a key, since a time.

        >>> client.audit.list(library="notes").all()[0].action
        'create_library'
        """
        query = without_none(library=library, key_id=key_id, since=to_rfc3339(since), limit=page_size)

        def page(cursor: str | None) -> Steps[Page[AuditEntry]]:
            request = build_request(routes.list_audit, query={**query, "cursor": cursor})
            answer = (yield from self._session.call(request)).json()
            return Page([types.parse(AuditEntry, item) for item in answer["items"]], answer["next_cursor"])

        return page


class Audit(Sync, _Audit):
    __doc__ = _Audit.__doc__


class AsyncAudit(Async, _Audit):
    __doc__ = _Audit.__doc__
