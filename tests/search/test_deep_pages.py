"""Pages of approximate rankings: nothing comes twice, nothing is left out, and each page is by score."""

import numpy as np
import pytest

from apps.engine.indexes.matrix import Matrix
from apps.engine.metrics import Metric
from apps.engine.storage.segment import Segment
from apps.engine.storage.view import View
from apps.search.query.search import Searcher, SearchRequest
from apps.search.query.spec import EVERYTHING, Hybrid
from tests.engine.approximate import embeddings
from tests.engine.data import sealed_rows_of

ROWS, DIMENSION, PAGE = 6000, 64, 37


@pytest.mark.any_database
@pytest.mark.parametrize("kind", ["hnsw", "ivf", "lsh", "quantized"])
def test_pages_of_an_approximate_ranking_hold_each_row_once(kind: str) -> None:
    keys, matrix = np.arange(ROWS), Matrix.build(embeddings(ROWS, DIMENSION), Metric.COSINE)
    segment = Segment.build(keys=keys, matrix=matrix, row_data=sealed_rows_of(keys), kind=kind)
    view = View.of(dimension=DIMENSION, metric=Metric.COSINE, segments=(segment,), built_at=0.0)
    for vector in embeddings(4, DIMENSION, seed=1):
        found: list[int] = []
        for offset in range(0, ROWS, PAGE):
            request = SearchRequest(
                offset + PAGE, "vector", vector, None, EVERYTHING, "auto", False, {}, Hybrid(), offset=offset
            )
            [hits] = Searcher(view).search([request])
            assert hits.scores == sorted(hits.scores, reverse=True)
            found += hits.keys
        assert sorted(found) == keys.tolist()
