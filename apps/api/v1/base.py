"""What the endpoints share."""

from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import Any, ClassVar
from urllib.parse import quote

from django.conf import settings
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.access.authorization import Scope, authorize
from apps.access.requests import SAFE_METHODS, Principal, Refused
from apps.api.errors import Denied, Problem
from apps.api.idempotency import KEY_HEADER, answer_once
from apps.api.parameters import Parameters, parse_parameters
from apps.libraries.ids import check_id
from apps.libraries.profile import Profile
from apps.libraries.selectors import etag


class ApiView(APIView):
    """An endpoint, whose query parameters are in `query`.

    `parameters` is the type of `query`. With `has_etag`, writes take `if_match`. `example_bodies` are bodies by method,
    for the schema and the browsable API, whose page links to the paths `below` this one. The schema has `sample_bodies`
    instead where there are some, by name. The page's form holds `form_content`. What an answer lists is in the
    library's `collection`, or below this path.
    """

    parameters: ClassVar[type[Parameters]] = Parameters
    query: Parameters
    has_etag: ClassVar[bool] = False
    if_match: str | None
    example_bodies: ClassVar[Mapping[str, Any]] = {}
    sample_bodies: ClassVar[Mapping[str, Any]] = {}
    below: ClassVar[tuple[str, ...]] = ()
    collection: ClassVar[str] = ""
    form_content: str = ""
    # What each method needs; left out, reading needs `read`, and all else `write`.
    scopes: ClassVar[Mapping[str, Scope]] = {}
    # Whether the endpoint is the server's own, out of reach for a key of some libraries.
    is_server_wide: ClassVar[bool] = False
    post: Callable[..., Any]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        for name, value in kwargs.items():
            check_id(name.removesuffix("_id"), value)
        if request.method in self.allowed_methods:
            self.query = parse_parameters(request.query_params, self.parameters)
        self.if_match = request.headers.get("If-Match")
        if KEY_HEADER in request.headers and self.takes_idempotency_key(request.method):
            self.post = partial(answer_once, self.post, request.headers[KEY_HEADER], self.principal)

    @classmethod
    def takes_idempotency_key(cls, method: str | None) -> bool:
        """Whether a method is a POST that changes something."""
        return method == "POST" and hasattr(cls, "post") and cls.scopes.get("POST", "write") in ("write", "admin")

    @property
    def creates_only(self) -> bool:
        """Whether a PUT is to create something, by If-None-Match. Raise Problem for another value of it than an
        asterisk."""
        given = self.request.headers.get("If-None-Match")
        if given not in (None, "*"):
            raise Problem("invalid", "The header If-None-Match must be an asterisk: a PUT that only creates.")
        return given is not None

    def check_permissions(self, request: Request) -> None:
        """Raise Denied where whoever asks may not. REST framework's pages ask this too, for each of their forms."""
        method = request.method or ""
        scope = self.scopes.get(method, "read" if method in SAFE_METHODS else "write")
        # A method that the path does not have has nothing to protect.
        is_allowed = method in self.allowed_methods
        try:
            authorize(
                self.principal,
                scope if is_allowed else "search",
                self.kwargs.get("library_id"),
                everywhere=self.is_server_wide and is_allowed,
            )
        except Refused as refused:
            raise Denied(refused) from None

    @property
    def principal(self) -> Principal:
        """Who asks."""
        found: Principal = self.request._request.principal  # type: ignore[attr-defined]
        return found

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Let go of the body: REST framework's requests refer to themselves, so they live until they are collected."""
        request._request._body, request._request._stream = b"", BytesIO()
        return super().finalize_response(request, response, *args, **kwargs)

    def links(self) -> dict[str, str]:
        """Where the browsable page leads, by name: to the paths below, what the answer lists, and its next page."""
        path = quote(self.request.path.rstrip("/"))
        links = {name: f"{path}/{name}" for name in self.below}
        data = self.response.data or {}
        items = [item for item in data.get("items", data.get("results", [])) if "id" in item]
        if self.collection:
            path = path_to("libraries", self.kwargs["library_id"], self.collection)
        links |= {item["id"]: f"{path}/{quote(item['id'], safe='')}" for item in items}
        # Of a list that was asked for by POST, the cursor goes into the body.
        if data.get("next_cursor") and self.request.method == "GET":
            query = self.request.query_params.copy()
            query["cursor"] = data["next_cursor"]
            links["next page"] = f"?{query.urlencode()}"
        return links


def path_to(*parts: str) -> str:
    """The path, for clients, of what is below the root, each part percent-encoded."""
    return "/".join([f"{settings.BASE_PATH}/api/v1", *(quote(part, safe="") for part in parts)])


def respond(data: Any, status: int = 200, location: str | None = None) -> Response:
    """A response with `data`; `location` is the path of what was made."""
    return Response(data, status=status, headers={} if location is None else {"Location": location})


def profile_data(profile: Profile | None) -> dict[str, Any]:
    """What an answer has of a recorded profile, if there is one."""
    return {} if profile is None else {"profile": profile.milliseconds()}


def with_etag(data: dict[str, Any], status: int = 200, location: str | None = None, tag: str | None = None) -> Response:
    """A response with `data` and its ETag, which is made from `data` unless it is given."""
    response = respond(data, status, location)
    response.headers["ETag"] = tag or etag(data)
    return response
