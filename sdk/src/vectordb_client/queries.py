"""Queries of a library, and what values its metadata has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vectordb_client import _routes as routes
from vectordb_client import types
from vectordb_client._binding import Resource, operation
from vectordb_client._bodies import parts, shown, to_filter, to_list
from vectordb_client._core import Steps, build_request, without_none
from vectordb_client.errors import InvalidArgument
from vectordb_client.filters import FilterLike, to_dict
from vectordb_client.types import (
    Facet,
    Facets,
    FieldSummaries,
    Hits,
)
from vectordb_client.vectors import Matrix, VectorLike, encode, rows_of, shape_of

Mode = Literal["vector", "lexical", "hybrid"]

# The most of one request.
_QUERIES = 256


class QueryMethods(Resource):
    """Methods of a library: queries, and the values of its metadata."""

    id: str

    @operation
    def query(
        self,
        query: str | VectorLike | None = None,
        *,
        k: int = 10,
        filter: FilterLike | None = None,
        mode: Mode = "vector",
        like: str | None = None,
        text: str | None = None,
        vector: VectorLike | None = None,
        include: Sequence[str] | None = None,
        offset: int | None = None,
        score_threshold: float | None = None,
        filter_mode: Literal["auto", "pre", "post"] | None = None,
        hybrid: Mapping[str, Any] | None = None,
        group_by: str | None = None,
        group_size: int | None = None,
        mmr: Mapping[str, Any] | None = None,
        boost: Sequence[Mapping[str, Any]] | None = None,
        depth: int | None = None,
        exact: bool | None = None,
        search_params: Mapping[str, Any] | None = None,
        embedding: Mapping[str, str] | None = None,
        profile: bool | None = None,
    ) -> Steps[Hits]:
        """The best `k` chunks for a text (a str), a vector (an array), or a chunk (`like="id"`).

        Mode `vector` ranks by similarity, `lexical` by the words of the text, `hybrid` by both; a hybrid query may have
        a `text` and a `vector` of its own. The server's docs/api.md explains the other options.

        >>> hits = lib.query("an apple a day", k=2, filter=F("year") >= 1850, mode="hybrid")
        >>> hits[0].id, hits[0].text
        ('apple', 'An apple a day')
        """
        body = _query_body(
            query,
            k=k,
            filter=filter,
            mode=mode,
            like=like,
            text=text,
            vector=vector,
            include=include,
            offset=offset,
            score_threshold=score_threshold,
            filter_mode=filter_mode,
            hybrid=hybrid,
            group_by=group_by,
            group_size=group_size,
            mmr=mmr,
            boost=boost,
            depth=depth,
            exact=exact,
            search_params=search_params,
            embedding=embedding,
            profile=profile,
        )
        answer = yield from self._session.call(build_request(routes.query, self.id, body=body))
        return types.parse_hits(answer.json())

    @operation
    def query_many(self, queries: Any, /, **options: Any) -> Steps[list[Hits]]:
        """Several queries: a list of texts, vectors and dicts of what `query` takes, or a matrix. Keywords are for all.

        Up to 256 of them are one request, answered from one state of the library.

        >>> [hits.ids for hits in lib.query_many(["apple", {"like": "apple"}], k=1)]
        [['apple'], ['pear']]
        """
        if isinstance(queries, (str, Mapping)):
            raise InvalidArgument(f"takes a list of queries, not the one {queries!r}")
        if shape_of(queries) is not None and isinstance(rows := rows_of(queries), Matrix):
            queries = [{"vector": one.decode()} for one in rows.base64(slice(None))]
        bodies = [
            _query_body(**{**options, **one}) if isinstance(one, Mapping) else _query_body(one, **options)
            for one in queries
        ]
        found: list[Hits] = []
        for part in parts(bodies, _QUERIES):
            request = build_request(routes.query_batch, self.id, body={"queries": part})
            answer = yield from self._session.call(request)
            found.extend(map(types.parse_hits, answer.json()["results"]))
        return found

    @operation
    def facets(
        self,
        field: str,
        *,
        filter: FilterLike | None = None,
        search: str | None = None,
        order_by: Literal["count", "value"] = "count",
        limit: int = 50,
        offset: int = 0,
    ) -> Steps[Facets]:
        """The values of a field, with the number of chunks that have each; `search` keeps strings with this text.

        >>> lib.facets("year", order_by="value").to_dict()
        {1780: 1, 1866: 1}
        """
        body = without_none(
            field=field, filter=to_filter(filter), search=search, order_by=order_by, limit=limit, offset=offset
        )
        answer = (yield from self._session.call(build_request(routes.count_values, self.id, body=body))).json()
        facets = tuple(Facet(one["value"], one["count"]) for one in answer["facets"])
        return Facets(facets, answer["values"], answer["chunks"])

    @operation
    def fields(self, fields: Sequence[str] | None = None, *, filter: FilterLike | None = None) -> Steps[FieldSummaries]:
        """What fields the chunks have, of which types, how many values, from where to where.

        >>> lib.fields(["year"])[0].types["integer"].max
        1866
        """
        body = without_none(filter=to_filter(filter), fields=to_list(fields))
        answer = yield from self._session.call(build_request(routes.summarize_fields, self.id, body=body))
        return types.parse_fields(answer.json())


def _query_body(
    query: str | VectorLike | None = None,
    *,
    filter: FilterLike | None = None,
    like: str | None = None,
    text: str | None = None,
    vector: VectorLike | None = None,
    include: Sequence[str] | None = None,
    boost: Sequence[Mapping[str, Any]] | None = None,
    **options: Any,
) -> dict[str, Any]:
    if isinstance(query, str):
        if text is not None:
            raise InvalidArgument("query and text are two texts: give one")
        text = query
    elif query is not None:
        if vector is not None:
            raise InvalidArgument("query and vector are two vectors: give one")
        vector = query
    if text is None and vector is None and like is None:
        raise InvalidArgument("nothing to look for: give a text, a vector, or like= with the id of a chunk")
    body = {name: value for name, value in options.items() if value is not None}
    if text is not None:
        body["text"] = text
    if vector is not None:
        body["vector"] = encode(vector)
    if like is not None:
        body["chunk_id"] = like
    if filter is not None:
        body["filter"] = to_dict(filter)
    if boost is not None:
        body["boost"] = list(boost)
    return {**body, **shown(include)} if include is not None else body
