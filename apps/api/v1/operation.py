"""What the schema says of a method of an endpoint, kept without what makes the schema: that is slow to import."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from apps.api.v1.schemas import Output
from apps.libraries.fields import Input

_Method = TypeVar("_Method", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operation:
    """The id of an operation, a line about it, the models of its body and of its answers, or the media types of files,
    and whether answers have a secret."""

    name: str
    summary: str
    answer: type[Output] | tuple[str, ...] | None
    body: type[Input] | tuple[str, ...] | None
    statuses: tuple[int, ...]
    description: str | None
    has_secret: bool
    empty: tuple[int, ...]


def operation(
    name: str,
    summary: str,
    answer: type[Output] | tuple[str, ...] | None,
    body: type[Input] | tuple[str, ...] | None = None,
    *,
    statuses: Iterable[int] = (200,),
    description: str | None = None,
    has_secret: bool = False,
    empty: Iterable[int] = (),
) -> Callable[[_Method], _Method]:
    """Describe a method of an endpoint, by its class unless there is a `description`. Without an `answer` it is 204;
    answers of the statuses `empty` have no body. An answer that `has_secret` is never stored."""

    def describe(method: _Method) -> _Method:
        described = Operation(name, summary, answer, body, tuple(statuses), description, has_secret, tuple(empty))
        method.operation = described  # type: ignore[attr-defined]
        return method

    return describe
