"""What the grouping of results keeps in memory. What it finds is in `tests/api/test_text.py`."""

import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest

from apps.libraries.inputs import DocumentsWrite, LibraryCreate
from apps.libraries.services.documents import create_documents
from apps.libraries.services.libraries import create_library
from apps.search.backend import open_library
from apps.search.query.groups import search_groups
from apps.search.query.search import SearchRequest
from apps.search.query.spec import EVERYTHING, QuerySpec

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

DOCUMENTS, DIMENSION, K = 1000, 4, 100


@pytest.mark.any_database
@pytest.mark.parametrize("filter", [{}, {"n": {"$lt": 900}}], ids=["all", "filtered"])
def test_no_mask_of_each_document_is_kept(filter: dict[str, Any]) -> None:
    vectors = np.random.default_rng(0).standard_normal((DOCUMENTS, 2, DIMENSION)).astype(np.float32)
    create_library(create=LibraryCreate(id="a", name="A", dimension=DIMENSION))
    documents = [
        {"chunks": [{"embedding": vector, "metadata": {"n": n}} for vector in pair]}
        for n, pair in enumerate(vectors.tolist())
    ]
    create_documents(library_id="a", write=DocumentsWrite.model_validate({"documents": documents}))
    options = {"k": K, "group_by": "document", "group_size": 2, "vector": [1.0] * DIMENSION}
    spec = QuerySpec.model_validate_json(orjson.dumps(options | {"filter": filter}))
    with open_library("a") as library:
        requests = [
            SearchRequest(K, spec.mode, vector, None, spec.filter, spec.filter_mode, spec.exact, {}, spec.hybrid)
            for vector in vectors[:8, 0]
        ]
        # Once, for what is made when it is first needed.
        for request in requests:
            search_groups(library, request, spec)
        tracemalloc.start()
        try:
            for request in requests:
                hits = search_groups(library, request, spec)
                assert len(hits.keys) == 2 * K
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 100 * library.searcher.count(EVERYTHING)
