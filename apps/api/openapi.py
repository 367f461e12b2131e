"""The OpenAPI schema, by drf-spectacular from the pydantic models of requests and answers.

`with_problems` adds what is true of every operation: the rule of ids, problem responses, the X-Request-ID header.
"""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema as _AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode, model_json_schema

from apps.api import pagination
from apps.libraries.fields import Identifier

LIST = [
    OpenApiParameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": pagination.MAX_LIMIT, "default": pagination.DEFAULT_LIMIT},
        description="How many items to answer.",
    ),
    OpenApiParameter("cursor", OpenApiTypes.STR, description="The `next_cursor` of the page before."),
]
IF_MATCH = OpenApiParameter(
    "If-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="Write only if this is still the ETag; 412 otherwise.",
)
INCLUDE = OpenApiParameter("include", {"type": "string", "enum": ["embedding"]}, description="What else to show.")
FILTER = OpenApiParameter("filter", OpenApiTypes.STR, description="Only the chunks that match: a filter, as JSON.")
DOCUMENT_ID = OpenApiParameter("document_id", OpenApiTypes.STR, description="Only the chunks of this document.")

# Statuses that any operation may answer beside its own, with when that happens.
_PROBLEMS = {
    "400": "Malformed or invalid, or past a limit.",
    "404": "What the path or the body names does not exist.",
    "409": "An id is taken, or the library has, or gets, another embedding model.",
    "412": "The resource has changed since its ETag was read.",
    "413": "The body is too large.",
    "415": "The body is not application/json.",
    "502": "The embedding provider failed; nothing was written.",
    "503": "Busy, disk full, or the database cannot be reached; try again after Retry-After.",
}
_BODY_ONLY = {"413", "415"}
_WRITE_ONLY = {"409", "412"}
_READS_BY_POST = {"query", "query_batch", "get_chunks", "count_chunks", "count_values"}
_TAGS = {"query": "queries"} | dict.fromkeys(("stats", "reindex", "reembed"), "libraries")
_REQUEST_ID = {"description": "The request's id.", "schema": {"type": "string"}}


def example(value: Any, name: str = "Example") -> OpenApiExample:
    """A request body that works."""
    return OpenApiExample(name, value=value, request_only=True)


def created(model: Any) -> OpenApiResponse:
    """The response 201 with `model`."""
    return OpenApiResponse(model, description="Created.")


class AutoSchema(_AutoSchema):
    """Tags operations by the part of the path that says what they are about."""

    def get_tags(self) -> list[str]:
        parts = self.path.removeprefix("/api/v1/").split("/")
        if len(parts) > 2:
            return [_TAGS.get(parts[2], parts[2])]
        return ["libraries" if parts[0] == "libraries" else "server"]


class PydanticModel(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """Describes pydantic models as they are parsed and rendered."""

    target_class = "pydantic.BaseModel"
    match_subclasses = True

    def get_name(self, auto_schema: Any, direction: str) -> str:
        name: str = self.target.__name__
        return name

    def map_serializer(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        mode: JsonSchemaMode = "validation" if direction == "request" else "serialization"
        schema = model_json_schema(self.target, ref_template="#/components/schemas/{model}", mode=mode)
        for name, definition in schema.pop("$defs", {}).items():
            component = ResolvedComponent(  # type: ignore[no-untyped-call]
                name, ResolvedComponent.SCHEMA, schema=definition, object=name
            )
            auto_schema.registry.register_on_missing(component)
        return schema


def only_documented(endpoints: list[tuple[str, str, str, Any]]) -> list[tuple[str, str, str, Any]]:
    """Preprocessing: leaves out what an endpoint inherits."""
    return [
        endpoint
        for endpoint in endpoints
        if (documented := getattr(endpoint[3].cls, "documented", None)) is None or endpoint[2] in documented
    ]


def with_problems(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Postprocessing: the rule of ids, problem responses and the request id's header on every operation."""
    from apps.api.v1.schemas import Problem

    schemas = result["components"].setdefault("schemas", {})
    problem = model_json_schema(Problem, ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    identifier = TypeAdapter(Identifier).json_schema()
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for operations in result["paths"].values():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["schema"] = identifier
            responses = operation["responses"]
            for status, description in _PROBLEMS.items():
                if status in _BODY_ONLY and "requestBody" not in operation:
                    continue
                if status in _WRITE_ONLY and (method == "get" or operation["operationId"] in _READS_BY_POST):
                    continue
                responses.setdefault(status, {"description": description, "content": content})
            responses["default"] = {"description": "Any other error.", "content": content}
            for response in responses.values():
                response.setdefault("headers", {})["X-Request-ID"] = _REQUEST_ID
    return result
