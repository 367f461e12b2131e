"""Queries: the one hot path. The HTTP edge answers a program by `route`, without Django's handler; every other door
leads to a view, which calls the same function."""

import re
from collections.abc import Callable
from typing import Any

import orjson
from django.http import HttpResponse
from rest_framework.request import Request

from apps.access import requests
from apps.access.authorization import authorize
from apps.access.requests import Answer, Principal
from apps.api.bodies import json_body
from apps.api.renderers import dumps, dumps_indented
from apps.api.v1 import examples, schemas
from apps.api.v1.base import ApiView, respond
from apps.api.v1.operation import operation
from apps.api.vector_json import validate
from apps.libraries.ids import is_library_id
from apps.libraries.response_budget import ResponseBudget
from apps.search.query import service
from apps.search.query.spec import QueryBatch, QuerySpec

_PATH = re.compile(r"/api/v1/libraries/([^/]+)/query(/batch)?")
_ROUTE = "/api/v1/libraries/{library_id}/query"
_JSON = b"application/json"
# A longer body is not sent back in the page: views live until they are collected.
_LARGEST_FORM = 100_000


def answer_query(principal: Principal, library_id: str, body: bytes) -> bytes:
    """Return the answer to a query, as JSON. Raises what `apps.api.errors` knows."""
    authorize(principal, "search", library_id)
    return _sized(service.query(library_id=library_id, spec=validate(body, QuerySpec)))


def answer_queries(principal: Principal, library_id: str, body: bytes) -> bytes:
    """As `answer_query`, for several."""
    authorize(principal, "search", library_id)
    batch = validate(body, QueryBatch)
    return _sized({"results": service.query_batch(library_id=library_id, specs=batch.queries)})


def _sized(data: dict[str, Any]) -> bytes:
    encoded = dumps(data)
    ResponseBudget().spend(len(encoded))
    return encoded


def route(request: requests.Request) -> Callable[[Principal], Answer] | None:
    """Return what answers a query as programs usually make it to the principal who asks; None for any other request.
    It raises as `answer_query`."""
    scope, headers, body = request.scope, request.headers, request.body
    if scope["method"] != "POST" or (found := _PATH.fullmatch(scope["path"])) is None or not is_library_id(found[1]):
        return None
    if headers.get(b"content-type") != _JSON or b"content-encoding" in headers or scope["query_string"]:
        return None
    if b"text/html" in headers.get(b"accept", b"") or not body or body.isspace():
        return None
    answer_body = answer_queries if found[2] else answer_query

    def answer(principal: Principal) -> Answer:
        request.observation.library, request.observation.route = found[1], _ROUTE + (found[2] or "")
        return requests.answer(200, _JSON, answer_body(principal, found[1], body))

    return answer


class _QueryView(ApiView):
    """What the two endpoints share. Queries write nothing, so the page's form is filled: with an example, then with
    what was sent."""

    collection = "chunks"
    scopes = {"POST": "search"}

    def body(self, request: Request) -> bytes:
        """The request's body."""
        body = json_body(request)
        if len(body) <= _LARGEST_FORM:
            self.form_content = body.decode(errors="replace")
        return body

    def render(self, request: Request, body: bytes) -> HttpResponse:
        """The response that has an answer."""
        if request.accepted_renderer.format == "json":
            return HttpResponse(body, content_type="application/json")
        return respond(orjson.loads(body))


class Query(_QueryView):
    """The nearest chunks to a vector, a text or another chunk, and the best by words; POST one."""

    example_bodies = {"POST": examples.QUERY}
    sample_bodies = examples.SAMPLE_QUERIES
    form_content = dumps_indented(examples.QUERY)

    @operation("query", "Find the nearest chunks", schemas.QueryAnswer, QuerySpec)
    def post(self, request: Request, library_id: str) -> HttpResponse:
        return self.render(request, answer_query(self.principal, library_id, self.body(request)))


class QueryMany(_QueryView):
    """Several queries, answered from one state of the library, in order."""

    example_bodies = {"POST": examples.QUERIES}
    sample_bodies = examples.SAMPLE_BATCHES
    form_content = dumps_indented(examples.QUERIES)
    name = "Query Batch"

    @operation("query_batch", "Answer several queries", schemas.QueryAnswers, QueryBatch)
    def post(self, request: Request, library_id: str) -> HttpResponse:
        return self.render(request, answer_queries(self.principal, library_id, self.body(request)))
