"""The libraries of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

from vectordb_client import _routes as routes
from vectordb_client import types
from vectordb_client._binding import Async, Pages, Resource, Sync, listing, operation
from vectordb_client._core import UNSET, Answer, Steps, build_request, without_none, without_unset
from vectordb_client.errors import Conflict, InvalidArgument, NotFound
from vectordb_client.index import IndexType
from vectordb_client.library import AsyncLibrary, Library
from vectordb_client.types import LibraryInfo, Page

L = TypeVar("L")


class _Libraries(Resource, Generic[L]):
    """The libraries that the key may see."""

    _library: type[Any]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @operation
    def create(
        self,
        id: str | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        dimension: int | None = None,
        metric: Literal["cosine", "dot", "euclidean"] | None = None,
        index_type: IndexType | None = None,
        index_params: Mapping[str, Any] | None = None,
        embedding: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        unindexed: Sequence[str] | None = None,
        if_exists: Literal["error", "get"] = "error",
    ) -> Steps[L]:
        """Create a library; the name is the id where it is left out, the metric cosine.

        Without `dimension`, the first vector fixes it. `embedding` is the model of its texts, `{"provider": ...,
        "model": ...}`; without one, the first text takes the server's default. With `if_exists="get"`, a library that
        exists is returned; it is a Conflict if it has another dimension, metric or model than those given here.

        >>> client.libraries.create("notes", if_exists="get").id
        'notes'
        """
        if if_exists not in ("error", "get"):
            raise InvalidArgument(f"if_exists: is error or get, not {if_exists!r}")
        wanted = without_none(dimension=dimension, metric=metric, embedding=embedding)
        if if_exists == "get" and id is not None:
            try:
                return (yield from self._get(id, wanted))
            except NotFound:
                pass
        body = without_none(
            id=id,
            name=name if name is not None else id,
            description=description,
            index_type=index_type,
            index_params=index_params,
            metadata=metadata,
            unindexed=None if unindexed is None else list(unindexed),
            **wanted,
        )
        try:
            answer = yield from self._session.call(build_request(routes.create_library, body=body))
        except Conflict:
            if if_exists != "get" or id is None:
                raise
            return (yield from self._get(id, wanted))  # another has made it meanwhile
        return self._handle(answer)

    @operation
    def get(self, id: str) -> Steps[L]:
        """A library that exists; NotFound otherwise. `client.library(id)` asks nothing.

        >>> client.libraries.get("notes").info.metric
        'cosine'
        """
        return (yield from self._get(id, {}))

    def _get(self, id: str, wanted: Mapping[str, Any]) -> Steps[L]:
        answer = yield from self._session.call(build_request(routes.get_library, id))
        library = self._handle(answer)
        found = answer.json()
        for name, value in wanted.items():
            # What is not fixed yet is fixed by the first vector or text.
            if found[name] is not None and found[name] != value:
                raise Conflict(f"The library {id!r} exists with {name}={found[name]!r}, not {value!r}.", status=409)
        return library

    @listing
    def list(self, *, page_size: int = 500) -> Pages[L]:
        """All libraries that the key may see, by creation.

        >>> "notes" in [library.id for library in client.libraries.list()]
        True
        """

        def page(cursor: str | None) -> Steps[Page[L]]:
            request = build_request(routes.list_libraries, query={"limit": page_size, "cursor": cursor})
            answer = (yield from self._session.call(request)).json()
            libraries = [
                self._library(self._runner, item["id"], types.parse(LibraryInfo, item)) for item in answer["items"]
            ]
            return Page(libraries, answer["next_cursor"])

        return page

    @operation
    def update(
        self,
        id: str,
        *,
        name: str | Any = UNSET,
        description: str | Any = UNSET,
        metadata: Mapping[str, Any] | Any = UNSET,
        index_type: IndexType | Any = UNSET,
        index_params: Mapping[str, Any] | Any = UNSET,
        unindexed: Sequence[str] | Any = UNSET,
        embedding: Mapping[str, str] | Any = UNSET,
        if_match: str | None = None,
    ) -> Steps[L]:
        """Change a library; what is not given stays. `embedding` names the model that it is expected to have.

        >>> client.libraries.update("notes", description="What I read").info.description
        'What I read'
        """
        body = without_unset(
            name=name,
            description=description,
            metadata=metadata,
            index_type=index_type,
            index_params=index_params,
            unindexed=unindexed if unindexed is UNSET else list(unindexed),
            embedding=embedding,
        )
        request = build_request(routes.update_library, id, body=body, if_match=if_match)
        return self._handle((yield from self._session.call(request)))

    @operation
    def delete(self, id: str, *, if_match: str | None = None) -> Steps[None]:
        """Delete a library with all that is in it."""
        yield from self._session.call(build_request(routes.delete_library, id, if_match=if_match))

    def _handle(self, answer: Answer) -> L:
        info = types.parse(LibraryInfo, answer.json(), etag=answer.headers.get("etag"))
        library: L = self._library(self._runner, info.id, info)
        return library


class Libraries(Sync, _Libraries[Library]):
    __doc__ = _Libraries.__doc__
    _library = Library


class AsyncLibraries(Async, _Libraries[AsyncLibrary]):
    __doc__ = _Libraries.__doc__
    _library = AsyncLibrary
