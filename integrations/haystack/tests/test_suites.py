"""Haystack's own suites. What they leave to the store is here: what NONE does, and what makes two documents equal.

Two tests are other than the suites': 1 and 1.0 are one number to the server, as they are in JSON.
"""

from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import pytest_asyncio
from haystack.dataclasses import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.testing import document_store as suite
from haystack.testing import document_store_async as async_suite

from haystack_integrations.document_stores.vectordb import VectorDBDocumentStore

ONE = [Document(content=str(i), meta={"priority": value}) for i, value in enumerate([1, "1", 1.0, True, 1])]


def assert_equal(received: list[Document], expected: list[Document]) -> None:
    """Equal in all, embeddings being rounded to float32."""
    assert received == [
        document if document.embedding is None else replace(document, embedding=np.float32(document.embedding).tolist())
        for document in expected
    ]


class TestStore(
    suite.DocumentStoreBaseExtendedTests,
    suite.CountDocumentsByFilterTest,
    suite.CountUniqueMetadataByFilterTest,
    suite.GetMetadataFieldsInfoTest,
    suite.GetMetadataFieldMinMaxTest,
    suite.GetMetadataFieldUniqueValuesTest,
):
    @pytest.fixture
    def document_store(self, store: VectorDBDocumentStore) -> VectorDBDocumentStore:
        return store

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        assert_equal(received, expected)

    def test_write_documents(self, document_store: VectorDBDocumentStore) -> None:
        documents = [Document(content="test doc")]
        assert document_store.write_documents(documents) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents(documents)
        assert document_store.filter_documents() == documents

    @staticmethod
    def test_get_metadata_field_unique_values_distinct_types(document_store: VectorDBDocumentStore) -> None:
        document_store.write_documents(ONE)
        values, total = document_store.get_metadata_field_unique_values("priority")
        assert ([repr(value) for value in values], total) == (["True", "1", "'1'"], 3)


class TestAsyncStore(
    async_suite.CountDocumentsAsyncTest,
    async_suite.WriteDocumentsAsyncTest,
    async_suite.DeleteDocumentsAsyncTest,
    async_suite.DeleteAllAsyncTest,
    async_suite.DeleteByFilterAsyncTest,
    async_suite.UpdateByFilterAsyncTest,
    async_suite.FilterDocumentsAsyncTest,
    async_suite.CountDocumentsByFilterAsyncTest,
    async_suite.CountUniqueMetadataByFilterAsyncTest,
    async_suite.GetMetadataFieldsInfoAsyncTest,
    async_suite.GetMetadataFieldMinMaxAsyncTest,
    async_suite.GetMetadataFieldUniqueValuesAsyncTest,
):
    @pytest_asyncio.fixture
    async def document_store(self, store: VectorDBDocumentStore) -> AsyncIterator[VectorDBDocumentStore]:
        yield store
        await store.close_async()

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        assert_equal(received, expected)

    @pytest.mark.asyncio
    async def test_write_documents_async(self, document_store: VectorDBDocumentStore) -> None:
        documents = [Document(content="test doc")]
        assert await document_store.write_documents_async(documents) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async(documents)
        assert await document_store.filter_documents_async() == documents

    @staticmethod
    @pytest.mark.asyncio
    async def test_get_metadata_field_unique_values_distinct_types_async(
        document_store: VectorDBDocumentStore,
    ) -> None:
        await document_store.write_documents_async(ONE)
        values, total = await document_store.get_metadata_field_unique_values_async("priority")
        assert ([repr(value) for value in values], total) == (["True", "1", "'1'"], 3)


def test_no_part_of_the_suites_is_left_out() -> None:
    """A mixin that Haystack adds is to be taken here."""
    for module, taken in (suite, TestStore), (async_suite, TestAsyncStore):
        mixins = {name for name in vars(module) if name.endswith("Test")}
        assert mixins <= {base.__name__ for base in taken.__mro__}
