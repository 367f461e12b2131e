"""How answers are written: JSON for programs, REST framework's pages for people."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.renderers import BrowsableAPIRenderer as _BrowsableAPIRenderer
from rest_framework.utils.breadcrumbs import get_breadcrumbs

# An array of numbers as orjson indents it. In a string the newline would be escaped.
_NUMBERS = re.compile(r"\[\n([\s\d.,e+-]+)\]")
_MOST_NUMBERS = 12


def dumps(data: Any) -> bytes:
    """`data` as JSON; numpy arrays become arrays."""
    return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)


def dumps_indented(data: Any) -> str:
    """`data` as JSON for people: numbers of an array stand in one line, and of many only the first are shown."""
    # Parsed once more: what is rendered may hold ready-made fragments, which are not indented.
    return _NUMBERS.sub(_fold, orjson.dumps(orjson.loads(dumps(data)), option=orjson.OPT_INDENT_2).decode())


def _fold(array: re.Match[str]) -> str:
    numbers = array[1].split()
    if len(numbers) > _MOST_NUMBERS:
        numbers = [*numbers[:4], f'"... {len(numbers) - 4} more numbers"']
    return f"[{' '.join(numbers)}]"


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
    """REST framework's page of an endpoint."""

    def get_context(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Without the inline style of highlighted code: there is none here, and the page's policy forbids it."""
        context: dict[str, Any] = super().get_context(*args, **kwargs)
        return context | {"code_style": ""}

    def get_content(self, renderer: Any, data: Any, accepted_media_type: Any, renderer_context: Any) -> str:
        return "" if data is None else dumps_indented(data)

    def get_breadcrumbs(self, request: Any) -> list[tuple[str, str]]:
        """Those of the path percent-encoded, so that an id with slashes is one step."""
        ids = request.resolver_match.kwargs if request.resolver_match else {}
        item = ids.get("document_id") or ids.get("chunk_id") or ""
        crumbs: list[tuple[str, str]] = get_breadcrumbs(quote(request.path.removesuffix(item)) + quote(item, safe=""))
        return crumbs

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        """The form is empty where a click would write. An example of a body shows behind it."""
        form = super().get_raw_data_form(data, view, method, request)
        if form is not None and method in view.example_bodies:
            example = view.example_bodies[method]
            shown = example if isinstance(example, str) else dumps_indented(example)
            form.fields["_content"].widget.attrs["placeholder"] = shown
            form.fields["_content"].initial = view.form_content
        return form


class ContentNegotiation(BaseContentNegotiation):
    """A page where a browser asks for one, JSON for everybody else, whatever they say they accept."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> tuple[Any, str]:
        wanted = request.query_params.get("format")
        html = wanted == "api" or (wanted is None and "text/html" in request.META.get("HTTP_ACCEPT", ""))
        renderer = next((renderer for renderer in renderers if (renderer.format == "api") == html), renderers[0])
        return renderer, renderer.media_type
