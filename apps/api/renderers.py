"""How answers are written: JSON for programs, pages for people.

A page shows the answer as JSON in which ids and the next cursor are links, and an editor for every method that takes
a body, filled with a body that works on what is there or with what was sent last.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

import orjson
from django.http.request import RawPostDataException
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.renderers import BrowsableAPIRenderer as _BrowsableAPIRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.v1 import examples

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY

_READS = ("GET", "HEAD")
_CODE = re.compile(r"`([^`]+)`")
# A longer body is not put back into the editor that sent it.
_MAX_EDITED = 100_000
_LINE = 100


def dumps(data: Any) -> bytes:
    """`data` as JSON; numpy arrays become arrays."""
    return orjson.dumps(data, option=_OPTIONS)


class JSONRenderer(BaseRenderer):
    """JSON by orjson."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return b"" if data is None else dumps(data)


class BrowsableAPIRenderer(_BrowsableAPIRenderer):
    """The page of an endpoint."""

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The page; for a path that only takes POST, reading it shows how to, with status 200."""
        context = renderer_context or {}
        if _only_takes_post(context["view"], context["request"], context["response"]):
            context["response"].status_code = 200
            data = None
        return super().render(data, accepted_media_type, renderer_context)

    def get_context(
        self, data: Any, accepted_media_type: str | None, renderer_context: Mapping[str, Any]
    ) -> dict[str, Any]:
        view, request, response = (renderer_context[name] for name in ("view", "request", "response"))
        shown = response.status_code < 400 and data is not None
        explain = data is None and request.method in _READS
        crumbs = list(_breadcrumbs(request.path))
        links = list(view.links(data or {})) if shown or explain else []
        ways, things = _ways_and_things(links, data)
        next_page = _next_page(request, data)

        def link(key: str, value: str) -> str | None:
            if len(crumbs) == 1:
                return value if value.startswith("/api/") else None
            if key == "document_id" and len(crumbs) > _LIBRARY:
                return f"{crumbs[_LIBRARY][1]}/documents/{quote(value, safe='')}"
            return things.get(value) if key == "id" else next_page if key == "next_cursor" else None

        return {
            "view": view,
            "request": request,
            "response": response,
            # The page's own media type says nothing about the answer in it.
            "response_headers": [item for item in sorted(response.items()) if item[0] != "Content-Type"],
            "name": view.get_view_name() if len(crumbs) > 1 else "API",
            "thing": view.kwargs.get(_NAMED.get(type(view).__name__, "")),
            "description": mark_safe(_CODE.sub(r"<code>\1</code>", view.get_view_description(html=True))),  # noqa: S308
            "breadcrumblist": crumbs,
            "links": ways,
            "content": _html(data, link),
            "next_page": next_page,
            "first_page": _page(request, None) if "cursor" in request.query_params else None,
            "explain": explain,
            "editors": [
                {"method": method, "body": body, "rows": min(max(body.count("\n") + 2, 8), 24)}
                for method in ("POST", "PUT", "PATCH")
                if method in view.allowed_methods and (body := _body(view, request, response, method, data)) is not None
            ],
            "delete": shown and "DELETE" in view.allowed_methods and request.method != "POST",
        }


def _body(view: Any, request: Request, response: Response, method: str, data: Any) -> str | None:
    """What the editor for `method` holds on the page that shows `data`; None where there is to be no editor.

    After a request it holds what was sent, to be corrected or varied, but for what has just been made.
    """
    if request.method == method and not (method == "POST" and response.status_code == 201):
        return _sent(request)
    if request.method not in (*_READS, method) or response.status_code >= 400 or (data is None and method != "POST"):
        return None
    return _text(examples.fitted(view.example_bodies.get(method, {}), method=method, data=data, **view.kwargs))


# Where a library's own page stands among the breadcrumbs of the pages below it.
_LIBRARY = 2
# Views of one thing, and the part of their path that names it.
_NAMED = {"Library": "library_id", "Document": "document_id", "Chunk": "chunk_id"}


def _only_takes_post(view: Any, request: Any, response: Any) -> bool:
    """Whether a page was asked of a path that has none, such as that of a query, in a library that exists."""
    return (
        request.method in _READS
        and response.status_code in (404, 405)
        and "POST" in view.example_bodies
        and examples.has_library(view.kwargs.get("library_id"))
    )


def _sent(request: Request) -> str:
    """The body of the request as text, if it is of a size that a person edits."""
    try:
        body: bytes = request._request.body
    except RawPostDataException:
        return ""
    return body.decode(errors="replace") if len(body) <= _MAX_EDITED else ""


def _next_page(request: Request, data: Any) -> str | None:
    cursor = data.get("next_cursor") if isinstance(data, dict) else None
    return None if cursor is None else _page(request, cursor)


def _page(request: Request, cursor: str | None) -> str:
    """The same list from `cursor` on, or from its beginning."""
    query = request.query_params.copy()
    query.pop("cursor", None)
    if cursor is not None:
        query["cursor"] = cursor
    return f"?{query.urlencode()}"


def _breadcrumbs(path: str) -> Iterator[tuple[str, str]]:
    """Each part of a path below the root of the API, with the path up to there."""
    root, _, rest = path.partition("/v1/")
    url = f"{root}/v1"
    yield "API", f"{url}/"
    for part in filter(None, rest.split("/")):
        url += f"/{quote(part, safe='')}"
        yield part, url


def _ways_and_things(links: list[tuple[str, str]], data: Any) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """A view's links, parted into those that lead on and, by id, those to what `data` lists or is; they come last."""
    listed = (data.get("items") or data.get("results") or [data]) if isinstance(data, dict) else []
    ids = [item["id"] for item in listed if "id" in item]
    count = len(links) - len(ids)
    if [unquote(url.rpartition("/")[2]) for _, url in links[count:]] != ids:
        return links, {}
    return links[:count], {thing: url for thing, (_, url) in zip(ids, links[count:], strict=True)}


def _text(value: Any) -> str:
    """JSON to be edited: indented, with short arrays on one line."""
    return "".join(_pieces(value, lambda _, text: text, str))


def _html(data: Any, link: Callable[[str, str], str | None]) -> SafeString:
    """JSON to be looked at: as `_text`, in colours; `link` says where a string leads that stands under a key."""

    def scalar(key: str | None, text: str) -> str:
        if not text.startswith('"'):
            return format_html('<i class="number">{}</i>', text)
        url = None if key is None else link(key, orjson.loads(text))
        return format_html('<a href="{}">{}</a>', url, text) if url else format_html("<i>{}</i>", text)

    if data is None:
        return mark_safe("")
    # Through JSON, since what is rendered holds arrays and ready-made fragments.
    value = orjson.loads(dumps(data))
    return mark_safe("".join(_pieces(value, scalar, lambda text: format_html("<b>{}</b>", text))))  # noqa: S308


def _pieces(
    value: Any,
    scalar: Callable[[str | None, str], str],
    name: Callable[[str], str],
    key: str | None = None,
    indent: str = "\n",
) -> Iterator[str]:
    """The pieces of indented JSON. `scalar` writes a value, given the key that it stands under, `name` writes a key."""
    if not isinstance(value, dict | list) or not value:
        yield scalar(key, dumps(value).decode())
    elif isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        yield scalar(None, dumps(value).decode().replace(",", ", "))
    elif isinstance(value, list) and all(isinstance(item, str) for item in value) and sum(map(len, value)) < _LINE:
        yield "[" + ", ".join(scalar(None, dumps(item).decode()) for item in value) + "]"
    else:
        pairs = [(None, item) for item in value] if isinstance(value, list) else value.items()
        # What a client keeps in metadata is its own business, whatever it is called.
        inner = (lambda _, text: scalar(None, text)) if key == "metadata" else scalar
        yield "[" if isinstance(value, list) else "{"
        for place, (child, item) in enumerate(pairs):
            yield ("," if place else "") + indent + "  "
            if child is not None:
                yield name(dumps(child).decode()) + ": "
            yield from _pieces(item, inner, name, child, indent + "  ")
        yield indent + ("]" if isinstance(value, list) else "}")


class ContentNegotiation(BaseContentNegotiation):
    """A page where a browser asks for one, JSON for everybody else, whatever they say they accept."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> tuple[Any, str]:
        wanted = request.query_params.get("format")
        html = wanted == "api" or (wanted is None and "text/html" in request.META.get("HTTP_ACCEPT", ""))
        renderer = next((renderer for renderer in renderers if (renderer.format == "api") == html), renderers[0])
        return renderer, renderer.media_type
