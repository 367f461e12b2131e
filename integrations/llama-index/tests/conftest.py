"""Tests run against the server of VECTORDB_URL and VECTORDB_API_KEY, as `make test-integrations` starts one."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest_asyncio
from vectordb_client import NotFound

from llama_index.vector_stores.vectordb import VectorDBVectorStore

MakeStore = Callable[..., VectorDBVectorStore]


@pytest_asyncio.fixture
async def make_store() -> AsyncIterator[MakeStore]:
    """Makes a store on a library of its own, which is deleted after the test."""
    made: list[VectorDBVectorStore] = []

    def make(**options: Any) -> VectorDBVectorStore:
        made.append(VectorDBVectorStore(**{"library": f"llama-index-{uuid4().hex}", **options}))
        return made[-1]

    yield make
    for store in made:
        with contextlib.suppress(NotFound):
            await store._async_client.libraries.delete(store.library)  # type: ignore[union-attr]
        await store.aclose()
