"""How answers are written: JSON for programs, pages for people."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import orjson
from django.utils.safestring import mark_safe
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.renderers import BrowsableAPIRenderer as _BrowsableAPIRenderer

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def dumps(data: Any) -> bytes:
    """`data` as JSON; numpy arrays become arrays."""
    return orjson.dumps(data, option=_OPTIONS)


class JSONRenderer(BaseRenderer):
    """JSON by orjson; indented within a page for people."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        if data is None:
            return b""
        if (renderer_context or {}).get("indent"):
            return orjson.dumps(data, option=_OPTIONS | orjson.OPT_INDENT_2)
        return dumps(data)


class BrowsableAPIRenderer(_BrowsableAPIRenderer):
    """REST framework's page, with a worked example in its editors and links to what comes next."""

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        form = super().get_raw_data_form(data, view, method, request)
        example = getattr(view, "examples", {}).get(method)
        if form and example is not None:
            form.fields["_content"].initial = json.dumps(example, indent=2)
        return form

    def get_context(self, data: Any, accepted_media_type: str, renderer_context: Mapping[str, Any]) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context(data, accepted_media_type, renderer_context)
        links = getattr(renderer_context["view"], "links", None)
        if links is not None and renderer_context["response"].status_code < 400:
            items = "".join(f'<li><a href="{escape(url)}">{escape(name)}</a></li>' for name, url in links(data))
            context["description"] = mark_safe(f"{context['description']}<ul>{items}</ul>")
        return context


class ContentNegotiation(BaseContentNegotiation):
    """A page where a browser asks for one, JSON for everybody else, whatever they say they accept."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> tuple[Any, str]:
        wanted = request.query_params.get("format")
        html = wanted == "api" or (wanted is None and "text/html" in request.META.get("HTTP_ACCEPT", ""))
        renderer = next((renderer for renderer in renderers if (renderer.format == "api") == html), renderers[0])
        return renderer, renderer.media_type
