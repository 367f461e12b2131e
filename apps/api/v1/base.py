"""What the endpoints share."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.api.pagination import check_parameters
from apps.libraries.errors import Invalid, NotFound
from apps.libraries.ids import is_id
from apps.libraries.selectors import etag

ROOT = "/api/v1"


class ApiView(APIView):
    """An endpoint. `example_bodies` are bodies by method, shown in the browsable API; `links` lead on from its page.

    `documented` names the methods that the schema shows, where those of a base class are documented there;
    `parameters` are the query parameters that it knows.
    """

    example_bodies: ClassVar[Mapping[str, Any]] = {}
    documented: ClassVar[frozenset[str] | None] = None
    parameters: ClassVar[tuple[str, ...]] = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        for name, value in kwargs.items():
            if not is_id(value):
                raise NotFound(f"There is no {name.removesuffix('_id')} {value!r}: that cannot be an id.")
        check_parameters(request.query_params, *self.parameters)

    def links(self, data: Any) -> Iterator[tuple[str, str]]:
        """Names and paths of what comes next."""
        yield "libraries", f"{ROOT}/libraries"
        yield "documentation", "/api/docs"


def path_to(*parts: str) -> str:
    """The path of what is below the root, each part percent-encoded."""
    return "/".join([ROOT, *(quote(part, safe="") for part in parts)])


def respond(data: Any, status: int = 200, location: str | None = None) -> Response:
    """A response with `data`; `location` is the path of what was made."""
    return Response(data, status=status, headers={} if location is None else {"Location": location})


def with_etag(data: dict[str, Any], status: int = 200, location: str | None = None, tag: str | None = None) -> Response:
    """A response with `data` and its ETag, which is made from `data` unless it is given."""
    response = respond(data, status, location)
    response.headers["ETag"] = tag or etag(data)
    return response


def no_content() -> Response:
    """204."""
    return Response(status=204)


def if_match(request: Request) -> str | None:
    """The request's If-Match header."""
    header: str | None = request.META.get("HTTP_IF_MATCH")
    return header


def wants_embedding(request: Request) -> bool:
    """Whether `?include=embedding` was sent; raises Invalid for another value."""
    include = request.query_params.get("include")
    if include not in (None, "embedding"):
        raise Invalid.at("/include", "must be embedding, or be left out")
    return include is not None
