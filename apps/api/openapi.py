"""The OpenAPI schema, by drf-spectacular from the pydantic models of requests and answers.

`add_problems` adds what is true of every operation: the rule of ids, problem responses, the X-Request-ID header.
"""

from typing import Any

from drf_spectacular.contrib.pydantic import PydanticExtension
from drf_spectacular.openapi import AutoSchema as _AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, NoDefault, model_json_schema

from apps.api.v1.schemas import Problem
from apps.libraries.fields import Identifier

_IF_MATCH = OpenApiParameter(
    "If-Match",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="Write only if this is still the ETag; 412 otherwise.",
)
# Leaves a method that an endpoint inherits out of the schema.
HIDDEN = extend_schema(exclude=True)

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
_REF = "#/components/schemas/{model}"


class AutoSchema(_AutoSchema):
    """Describes an endpoint by its path and by what its class, an `ApiView`, says."""

    view: Any

    def get_tags(self) -> list[str]:
        parts = self.path.removeprefix("/api/v1/").split("/")
        if len(parts) > 2:
            return [_TAGS.get(parts[2], parts[2])]
        return ["libraries" if parts[0] == "libraries" else "server"]

    def get_override_parameters(self) -> list[Any]:
        if self.method in ("PUT", "PATCH", "DELETE") and self.view.has_etag:
            return [_IF_MATCH]
        return [self.view.parameters] if self.method == "GET" else []

    def get_response_serializers(self) -> Any:
        return {204: None} if self.method == "DELETE" else super().get_response_serializers()

    def get_examples(self) -> list[OpenApiExample]:
        body = self.view.example_bodies.get(self.method)
        return [] if body is None else [OpenApiExample("Example", body, request_only=True)]


class _RequestSchema(GenerateJsonSchema):
    """Shows no default that says the same as leaving the field out: to send both of two alternatives is refused."""

    def get_default_value(self, schema: Any) -> Any:
        default = super().get_default_value(schema)
        return default if default or default == 0 else NoDefault


class PydanticModel(PydanticExtension):  # type: ignore[no-untyped-call]
    """Describes pydantic models as they are parsed and rendered; drf-spectacular's own only as they are rendered."""

    priority = 1

    def map_serializer(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        if direction == "request":
            schema = model_json_schema(self.target, ref_template=_REF, schema_generator=_RequestSchema)
        else:
            schema = model_json_schema(self.target, ref_template=_REF, mode="serialization")
        for name, definition in schema.pop("$defs", {}).items():
            component = ResolvedComponent(  # type: ignore[no-untyped-call]
                name, ResolvedComponent.SCHEMA, schema=definition, object=name
            )
            auto_schema.registry.register_on_missing(component)
        return schema


def add_problems(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Postprocessing: the rule of ids, problem responses and the request id's header on every operation."""
    schemas = result["components"].setdefault("schemas", {})
    problem = model_json_schema(Problem, ref_template=_REF)
    schemas |= problem.pop("$defs") | {"Problem": problem}
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
