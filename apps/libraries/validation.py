"""What errors of pydantic say here. A `validation_error` of `fields` brings its own sentence."""

from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from apps.libraries.errors import Fault, pointer

_SENTENCES: Final = {
    "missing": "is required",
    "string_type": "must be a string",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be an array",
    "tuple_type": "must be an array",
    "too_short": "must have at least one item",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "extra_forbidden": "is not a known field",
}

# The same for errors that name a bound, by its name.
_BOUNDS: Final = {
    "expected": "must be one of {}",
    "le": "must be at most {:g}",
    "ge": "must be at least {:g}",
    "gt": "must be greater than {:g}",
    "max_length": "must have at most {} characters",
}


def detail_of(item: ErrorDetails) -> str:
    """The end of the sentence that begins with the field."""
    context = item.get("ctx", {})
    if "detail" in context:
        return str(context["detail"])
    if item["type"] in _SENTENCES:
        return _SENTENCES[item["type"]]
    for name, sentence in _BOUNDS.items():
        if name in context:
            return sentence.format(context[name])
    return item["msg"]


def faults_of(error: ValidationError) -> list[Fault]:
    """All that an error tells, each with the pointer to its place."""
    return [fault_of(item) for item in error.errors(include_url=False, include_input=False)]


def fault_of(item: ErrorDetails) -> Fault:
    """The error with the pointer to its place."""
    return Fault(pointer((*item["loc"], *item.get("ctx", {}).get("path", ()))), detail_of(item))
