"""The library on the server, reached by a sync and an async client, each made when it is first needed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

from haystack.errors import FilterError
from haystack.utils import Secret
from vectordb_client import AsyncClient, AsyncLibrary, BadRequest, Client, Library, VectorDBError

from haystack_integrations.document_stores.vectordb.operations import Call, Steps

T = TypeVar("T")


class Connection:
    """Runs steps. The library is created, as `creation` says, when it is first used and does not exist."""

    def __init__(
        self, library: str, url: str | None, api_key: Secret | None, timeout: float, creation: Mapping[str, Any]
    ) -> None:
        self._id, self._url, self._api_key, self._timeout = library, url, api_key, timeout
        self._creation = {**creation, "if_exists": "get"}
        self._is_created = False
        self._client: Client | None = None
        # With the event loop in which it was made, to which its connections belong.
        self._async_client: tuple[asyncio.AbstractEventLoop, AsyncClient] | None = None

    def run(self, steps: Steps[T]) -> T:
        """The result of the steps; raise FilterError where the server refused the filter."""
        library = self._library()
        try:
            call = next(steps)
            while True:
                call = _resume(steps, _attempt(call, library))
        except StopIteration as end:
            result: T = end.value
            return result

    async def run_async(self, steps: Steps[T]) -> T:
        """The result of the steps; raise FilterError where the server refused the filter."""
        library = await self._async_library()
        try:
            call = next(steps)
            while True:
                call = _resume(steps, await _attempt_async(call, library))
        except StopIteration as end:
            result: T = end.value
            return result

    def delete_library(self) -> None:
        """Delete the library; it is created again when it is next used."""
        self._open().libraries.delete(self._id)
        self._is_created = False

    async def delete_library_async(self) -> None:
        """Delete the library; it is created again when it is next used."""
        await self._open_async().libraries.delete(self._id)
        self._is_created = False

    def close(self) -> None:
        """Close the connections of the sync client."""
        if self._client is not None:
            self._client.close()
        self._client = None

    async def close_async(self) -> None:
        """Close the connections of the async client."""
        if self._async_client is not None and self._async_client[0] is asyncio.get_running_loop():
            await self._async_client[1].close()
        self._async_client = None

    def _library(self) -> Library:
        client = self._open()
        if not self._is_created:
            client.libraries.create(self._id, **self._creation)
            self._is_created = True
        return client.library(self._id)

    async def _async_library(self) -> AsyncLibrary:
        client = self._open_async()
        if not self._is_created:
            await client.libraries.create(self._id, **self._creation)
            self._is_created = True
        return client.library(self._id)

    def _open(self) -> Client:
        if self._client is None:
            self._client = Client(self._url, self._key(), timeout=self._timeout)
        return self._client

    def _open_async(self) -> AsyncClient:
        loop = asyncio.get_running_loop()
        if self._async_client is None or self._async_client[0] is not loop:
            self._async_client = loop, AsyncClient(self._url, self._key(), timeout=self._timeout)
        return self._async_client[1]

    def _key(self) -> str | None:
        return self._api_key.resolve_value() if self._api_key else None


def _attempt(call: Call, library: Library) -> Any:
    try:
        return call(library)
    except VectorDBError as error:
        return error


async def _attempt_async(call: Call, library: AsyncLibrary) -> Any:
    try:
        return await call(library)
    except VectorDBError as error:
        return error


def _resume(steps: Steps[Any], outcome: Any) -> Call:
    """The next call. A filter that the server refused, such as one with too many conditions, is a FilterError."""
    if not isinstance(outcome, VectorDBError):
        return steps.send(outcome)
    is_of_filter = isinstance(outcome, BadRequest) and any(one.startswith("/filter") for one in outcome.pointers)
    return steps.throw(FilterError(str(outcome)) if is_of_filter else outcome)
