"""Queries: the one hot path. A program's request is usually answered by `apps.api.shortcut`, else by a plain view; a
browser gets REST framework's page."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.bodies import json_body
from apps.api.errors import Problem, problem_of, response_to
from apps.api.openapi import example
from apps.api.pagination import check_parameters
from apps.api.renderers import dumps
from apps.api.v1 import examples, schemas
from apps.api.v1.base import ApiView, path_to, respond
from apps.api.vector_json import validate
from apps.libraries.ids import is_id
from apps.libraries.response_budget import ResponseBudget
from apps.search.query import service as services
from apps.search.query.spec import QueryBatch, QuerySpec


class _QueryView(ApiView):
    """Answers POST without REST framework unless the client wants a page, which makes a query three times as fast."""

    @classmethod
    def answer_to(cls, library_id: str, body: bytes) -> dict[str, Any]:
        """Parse, search."""
        raise NotImplementedError

    @classmethod
    def body_to(cls, library_id: str, body: bytes) -> bytes:
        """The answer as JSON; raises Invalid where that is too large."""
        answer = dumps(cls.answer_to(library_id, body))
        ResponseBudget().spend(len(answer))
        return answer

    @classmethod
    def run(cls, request: HttpRequest, library_id: str) -> dict[str, Any]:
        """The answer to a request, for a page."""
        return cls.answer_to(library_id, json_body(request))

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        page = super().as_view(**initkwargs)

        def view(request: HttpRequest, library_id: str) -> HttpResponseBase:
            if request.method != "POST" or "text/html" in request.META.get("HTTP_ACCEPT", ""):
                return page(request, library_id=library_id)
            try:
                if not is_id(library_id):
                    raise Problem("not_found", f"There is no library {library_id!r}: that cannot be an id.")
                check_parameters(request.GET)
                return HttpResponse(cls.body_to(library_id, json_body(request)), content_type="application/json")
            except Exception as error:
                problem = problem_of(error)
                if problem is None:
                    raise
                return response_to(request, problem)

        # What Django and drf-spectacular look for on a REST framework view.
        view.csrf_exempt = True  # type: ignore[attr-defined]
        view.cls = cls  # type: ignore[attr-defined]
        view.initkwargs = initkwargs  # type: ignore[attr-defined]
        return view

    def links(self, data: Any) -> Iterator[tuple[str, str]]:
        library_id = self.kwargs["library_id"]
        yield "the library", path_to("libraries", library_id)
        for result in self.results(data):
            yield result["id"], path_to("libraries", library_id, "chunks", result["id"])

    def results(self, data: Any) -> Iterable[dict[str, Any]]:
        """All results of an answer."""
        found: Iterable[dict[str, Any]] = data.get("results", [])
        return found


class Query(_QueryView):
    """The nearest chunks to a vector, a text or another chunk, and the best by words; POST one."""

    example_bodies = {"POST": examples.QUERY}

    @classmethod
    def answer_to(cls, library_id: str, body: bytes) -> dict[str, Any]:
        return services.query(library_id=library_id, spec=validate(body, QuerySpec))

    @extend_schema(
        operation_id="query",
        summary="Find the nearest chunks",
        request=QuerySpec,
        responses=schemas.QueryAnswer,
        examples=[example(examples.QUERY)],
    )
    def post(self, request: Request, library_id: str) -> Response:
        return respond(self.run(request, library_id))


class QueryMany(_QueryView):
    """Several queries, answered from one state of the library, in order."""

    example_bodies = {"POST": examples.QUERIES}

    def results(self, data: Any) -> Iterable[dict[str, Any]]:
        return chain.from_iterable(one.get("results", []) for one in data.get("results", []))

    @classmethod
    def answer_to(cls, library_id: str, body: bytes) -> dict[str, Any]:
        batch = validate(body, QueryBatch)
        return {"results": services.query_batch(library_id=library_id, specs=batch.queries)}

    @extend_schema(
        operation_id="query_batch",
        summary="Answer several queries",
        request=QueryBatch,
        responses=schemas.QueryAnswers,
        examples=[example(examples.QUERIES)],
    )
    def post(self, request: Request, library_id: str) -> Response:
        return respond(self.run(request, library_id))
