"""JSON Schemas of pydantic models, as the OpenAPI schema and the tools of agents show them."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, NoDefault


class JsonSchema(GenerateJsonSchema):
    """Shows the defaults of requests, but for empty ones, which only mark a field as left out; answers have none."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def get_default_value(self, schema: Any) -> Any:
        default = super().get_default_value(schema)
        return default if self.mode == "validation" and (default or default == 0) else NoDefault
