"""The OpenAPI schema, by drf-spectacular from the pydantic models of requests and answers; imported when somebody first
asks for the schema.

`complete` adds what is true of every operation: the rule of ids, problem responses, the X-Request-ID header.
"""

from typing import Any

from drf_spectacular.contrib.pydantic import PydanticExtension
from drf_spectacular.openapi import AutoSchema as _AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode, model_json_schema, models_json_schema

from apps.api.errors import CONTENT_TYPE
from apps.api.idempotency import KEY_HEADER, REPLAYED_HEADER
from apps.api.json_schema import JsonSchema
from apps.api.v1.examples import SAMPLE
from apps.api.v1.operation import Operation
from apps.api.v1.schemas import Health, Problem, Readiness
from apps.libraries.fields import Identifier, LibraryIdentifier


def _header(name: str, description: str, **options: Any) -> OpenApiParameter:
    return OpenApiParameter(name, OpenApiTypes.STR, OpenApiParameter.HEADER, description=description, **options)


_IF_MATCH = _header("If-Match", "Write only if this is still the ETag; 412 otherwise.")
_IF_NONE_MATCH = _header("If-None-Match", "`*`: create only; 412 if it exists.")
_KEY = _header(KEY_HEADER, "The request is carried out once, however often it is sent with this key.")
_ETAG = _header("ETag", "Names this state of the resource, for If-Match.", response=["200"])


# Problems beside an operation's own answers: what an operation has that may be answered so, the status, and when it is.
_PROBLEMS = (
    ("operation", "400", "Malformed or invalid, or past a limit."),
    ("operation", "401", "No key, or one that is not good, expired or revoked."),
    ("operation", "403", "The key's scopes do not reach."),
    ("path", "404", "What the path or the body names does not exist."),
    (KEY_HEADER, "409", "An id or the Idempotency-Key is taken, or the library has, or gets, another embedding model."),
    ("body", "409", "An id is taken, or the library has, or gets, another embedding model."),
    ("If-Match", "412", "The resource has changed since its ETag was read, or exists where it is to be created."),
    ("body", "413", "The body is too large."),
    ("body", "415", "The body is not application/json."),
    ("body", "502", "The embedding provider failed; nothing was written."),
    ("operation", "503", "Busy, too slow, disk full, or the database cannot be reached; try again after Retry-After."),
    ("operation", "default", "Any other error."),
)
_REQUEST_ID = {"description": "The request's id, also in the server's log.", "schema": {"type": "string"}}
_REF = "#/components/schemas/{model}"


class AutoSchema(_AutoSchema):
    """Describes an endpoint by what its class, an `ApiView`, and the `Operation` of its method say, under the name of
    its module."""

    view: Any

    @property
    def operation(self) -> Operation:
        found: Operation = getattr(self.view, self.method.lower()).operation
        return found

    def get_operation_id(self) -> str:
        return self.operation.name

    def get_summary(self) -> str:
        return self.operation.summary

    def get_description(self) -> str:  # type: ignore[override]
        return self.operation.description or super().get_description()

    def get_request_serializer(self) -> Any:
        body = self.operation.body
        return dict.fromkeys(body, OpenApiTypes.BINARY) if isinstance(body, tuple) else body

    def get_response_serializers(self) -> Any:
        answer = self.operation.answer
        if answer is None:
            return {204: OpenApiResponse(None, "It is done.")}
        if isinstance(answer, tuple):
            file = OpenApiResponse(OpenApiTypes.BINARY, "The file.")
            return {(status, media_type): file for status in self.operation.statuses for media_type in answer}
        of_answers: dict[int, Any] = dict.fromkeys(self.operation.statuses, answer)
        return of_answers | {status: OpenApiResponse(None, "It is done.") for status in self.operation.empty}

    def is_excluded(self) -> bool:
        # `/chunks/count` is no chunk, though its view inherits a chunk's methods for the id "count".
        return self.method.lower() not in vars(type(self.view))

    def get_auth(self) -> list[Any]:
        # The same for all operations, as the settings say.
        return []

    def get_tags(self) -> list[str]:
        return [str(self.view.__module__).rpartition(".")[2]]

    def get_override_parameters(self) -> list[Any]:
        has_parameters = self.method == "GET" or not hasattr(self.view, "get")
        found: list[Any] = [self.view.parameters] if has_parameters else []
        if self.view.has_etag and self.method in ("GET", "PATCH"):
            found.append(_ETAG)
        if self.view.has_etag and self.method in ("PUT", "PATCH", "DELETE"):
            found.append(_IF_MATCH)
        if self.view.has_etag and self.method == "PUT":
            found.append(_IF_NONE_MATCH)
        if self.view.takes_idempotency_key(self.method):
            statuses = [str(status) for status in self.operation.statuses]
            found += [_KEY, _header(REPLAYED_HEADER, "`true` where an earlier answer is repeated.", response=statuses)]
        return found

    def get_examples(self) -> list[OpenApiExample]:
        body = self.view.example_bodies.get(self.method)
        bodies = self.view.sample_bodies or ({} if body is None else {"Example": body})
        return [
            # A text is a file of lines.
            OpenApiExample(
                name, body, request_only=True, media_type="application/x-ndjson" if isinstance(body, str) else None
            )
            for name, body in bodies.items()
        ]


class PydanticModel(PydanticExtension):  # type: ignore[no-untyped-call]
    """Describes pydantic models as they are parsed and rendered; drf-spectacular's own only as they are rendered."""

    priority = 1

    def map_serializer(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        mode: JsonSchemaMode = "validation" if direction == "request" else "serialization"
        schema = model_json_schema(self.target, ref_template=_REF, schema_generator=JsonSchema, mode=mode)
        for name, definition in schema.pop("$defs", {}).items():
            component = ResolvedComponent(  # type: ignore[no-untyped-call]
                name, ResolvedComponent.SCHEMA, schema=definition, object=name
            )
            auto_schema.registry.register_on_missing(component)
        return schema


def _content(model: str, media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": _REF.format(model=model)}}}


def _server_paths() -> dict[str, Any]:
    """`/health`, `/ready` and `/metrics`, which are views of Django's: drf-spectacular does not look at them."""
    health, ready = {"content": _content("Health")}, {"content": _content("Readiness")}
    not_ready = ready | {"description": "They cannot be; `checks` says why."}
    described: Any = {
        "health": ("Whether the process answers", {"200": health}),
        "ready": ("Whether requests can be served", {"200": ready, "503": not_ready}),
    }
    paths: dict[str, Any] = {
        f"/{name}": {
            "get": {"operationId": name, "summary": summary, "tags": ["server"], "responses": responses, "security": []}
        }
        for name, (summary, responses) in described.items()
    }
    metrics: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    metrics["description"] = "Lines in Prometheus' format, or in that of OpenMetrics where it is accepted."
    summary = "What all processes count, for Prometheus"
    operation = {"operationId": "metrics", "summary": summary, "tags": ["server"], "responses": {"200": metrics}}
    return paths | {"/metrics": {"get": operation}}


def complete(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Postprocessing: what is true of every operation, such as the rule of ids and how errors look."""
    models: Any = [(model, "serialization") for model in (Problem, Health, Readiness)]
    _, definitions = models_json_schema(models, ref_template=_REF, schema_generator=JsonSchema)
    schemas = result["components"]["schemas"] | definitions["$defs"]
    result["components"]["schemas"] = schemas
    result["paths"] |= _server_paths()
    identifier = TypeAdapter(Identifier).json_schema()
    library_identifier = TypeAdapter(LibraryIdentifier).json_schema()
    for operations in result["paths"].values():
        for operation in operations.values():
            has = {"operation", *(parameter["name"] for parameter in operation.get("parameters", []))}
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    of_library = parameter["name"] == "library_id"
                    parameter["schema"] = library_identifier if of_library else identifier
                    parameter["description"] = f"The {parameter['name'].removesuffix('_id')}'s id, percent-encoded."
                    has.add("path")
                    if operation["tags"] == ["query"]:
                        parameter["example"] = SAMPLE
            if "requestBody" in operation:
                operation["requestBody"]["required"] = operation["operationId"] != "reindex"
                has.add("body")
            responses = operation["responses"]
            for response in responses.values():
                for content in response.get("content", {}).values():
                    model = content["schema"].get("$ref", "").rpartition("/")[2]
                    response["description"] = response.get("description") or schemas[model]["description"]
            for what, status, description in _PROBLEMS:
                if what in has:
                    response = responses.setdefault(status, {"description": description})
                    response["content"] = response.get("content", {}) | _content("Problem", CONTENT_TYPE)
            for response in responses.values():
                response.setdefault("headers", {})["X-Request-ID"] = _REQUEST_ID
    return result
