"""Judged queries, one JSON object a line: a text, a vector or both, and the grades of what is relevant."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from apps.libraries.errors import pointer
from apps.libraries.fields import Input, Text, Vector, validation_error

_MAX_FAULTS = 20
_MAX_GRADE = 1000


class InvalidJudgements(Exception):
    """The file cannot be used; the message has a line for each fault."""


def _grades(value: Any) -> Any:
    """A list of ids as an object: each has the grade 1."""
    if not isinstance(value, list):
        return value
    if not all(isinstance(one, str) for one in value) or len(set(value)) < len(value):
        raise validation_error("must be an object of ids with their grades, or a list of distinct ids")
    return dict.fromkeys(value, 1)


class _Line(Input):
    vector_key = "vector"

    id: str = Field("", min_length=1)
    text: Text = ""
    vector: Vector = ""
    relevant: Annotated[dict[str, Annotated[int, Field(ge=0, le=_MAX_GRADE)]], BeforeValidator(_grades)]

    @model_validator(mode="after")
    def _check_content(self) -> "_Line":
        if not self.is_set("text") and not self.is_set("vector"):
            raise validation_error("needs a text or a vector")
        if self.is_set("text") and not self.text.strip():
            raise validation_error("must not be blank", path=("text",))
        if not any(self.relevant.values()):
            raise validation_error("needs an id with a grade of 1 or more", path=("relevant",))
        return self


class Judgement(NamedTuple):
    """A query, and the grades of ids: 0 is irrelevant, and so is what has none. `place` is the file and the line."""

    id: str
    text: str | None
    vector: list[float] | str | None
    grades: Mapping[str, int]
    place: str


def read_judgements(path: Path) -> list[Judgement]:
    """The judgements of a file; blank lines are passed over, and a query without `id` is named by its line. Raises
    InvalidJudgements, OSError."""
    found: dict[str, Judgement] = {}
    faults: list[str] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            read = _Line.model_validate_json(line)
        except ValidationError as error:
            faults += [f"{place}: {_sentence(one)}" for one in error.errors()]
            continue
        query = read.id or str(number)
        if query in found:
            faults.append(f"{place}: /id repeats {query!r} of {found[query].place}")
        text, vector = (getattr(read, name) if read.is_set(name) else None for name in ("text", "vector"))
        found[query] = Judgement(query, text, vector, read.relevant, place)
    if faults:
        more = [f"... and {len(faults) - _MAX_FAULTS:,} more"] if len(faults) > _MAX_FAULTS else []
        raise InvalidJudgements("\n".join([*faults[:_MAX_FAULTS], *more]))
    if not found:
        raise InvalidJudgements(f"{path} has no judgements")
    return list(found.values())


def _sentence(error: Any) -> str:
    """What is wrong in a line, and where."""
    where = pointer([*error["loc"], *error.get("ctx", {}).get("path", ())])
    # The line of the file is known.
    return f"{where} {error['msg'].replace(' at line 1 ', ' at ')}".strip()


def example() -> str:
    """A line that can be read."""
    return orjson.dumps({"text": "how are keys rotated", "relevant": {"guide-7": 2, "guide-9": 1}}).decode()
