"""Stores in libraries of their own, on the server that the environment names."""

import os
import uuid
from collections.abc import Iterator

import pytest
from vectordb_client import Client

from haystack_integrations.document_stores.vectordb import VectorDBDocumentStore

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"


@pytest.fixture
def store() -> Iterator[VectorDBDocumentStore]:
    store = VectorDBDocumentStore(f"haystack-{uuid.uuid4().hex}")
    yield store
    store.close()
    with Client() as client:
        client.libraries.delete(store.library)
