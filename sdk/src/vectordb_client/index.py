"""The index of a library, and the embedding model that its vectors are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

from vectordb_client import _routes as routes
from vectordb_client._binding import Resource, operation
from vectordb_client._core import Steps, build_request, without_none
from vectordb_client.jobs import index_job, reembedding_job

J = TypeVar("J")
IndexType = Literal["auto", "brute_force", "kd_tree", "lsh", "quantized", "ivf", "hnsw"]


class IndexMethods(Resource, Generic[J]):
    """Methods of a library: its index and its embedding model."""

    id: str
    _job: type[Any]

    @operation
    def reindex(
        self, index_type: IndexType | None = None, *, index_params: Mapping[str, Any] | None = None
    ) -> Steps[J]:
        """Rebuild the index, of another type if one is given; queries go on. `wait()` of the result waits for it.

        >>> lib.reindex("brute_force").wait().state
        'done'
        """
        body = without_none(index_type=index_type, index_params=index_params)
        answer = yield from self._session.call(build_request(routes.reindex, self.id, body=body))
        job: J = index_job(self, self._job, self.id, answer.json())
        return job

    @operation
    def reembed(self, embedding: Mapping[str, str]) -> Steps[J]:
        """Move the library to another embedding model, `{"provider": ..., "model": ...}`; queries go on."""
        answer = yield from self._session.call(build_request(routes.reembed, self.id, body={"embedding": embedding}))
        job: J = reembedding_job(self, self._job, self.id, answer.json())
        return job

    @operation
    def reembedding(self) -> Steps[J]:
        """The move to another model that is under way; NotFound where none is."""
        answer = yield from self._session.call(build_request(routes.get_reembedding, self.id))
        job: J = reembedding_job(self, self._job, self.id, answer.json())
        return job
