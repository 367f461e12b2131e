"""What the domain refuses. `apps.api.errors` gives each class its HTTP status.

LibraryError
├── Invalid              a value that breaks a rule
│   └── EmbeddingRequired  a chunk without a vector in a library without a model
├── NotFound             what was named does not exist
├── Conflict             an id that is taken, or a state that does not allow the request
│   ├── TextChanged      a stored text that changed while the request was embedded
│   └── ModelMismatch    a request that names another embedding model than the library's
│       └── ModelChanged   a library whose model changed while the request was embedded
├── TooSlow              the time of a request is up
└── PreconditionFailed   the If-Match of a request is not the current ETag, or what it is to create exists
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from apps.access.authorization import absent_library


class Fault(NamedTuple):
    """One thing wrong in a request: a JSON pointer into its body (or /name of a query parameter) and a sentence."""

    pointer: str
    detail: str


def pointer(path: Iterable[str | int]) -> str:
    """An RFC 6901 JSON pointer."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


class LibraryError(Exception):
    """Base of all errors of the domain; `faults` says what is wrong and where."""

    def __init__(self, detail: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)


class Invalid(LibraryError):
    """A value that breaks a rule."""

    @classmethod
    def at(cls, pointer: str, detail: str) -> "Invalid":
        """The error with one fault at `pointer`."""
        return cls(detail, [Fault(pointer, detail)])


class EmbeddingRequired(Invalid):
    """A chunk came without a vector, and the library has no model to make one."""


class NotFound(LibraryError):
    """What was named does not exist."""

    @classmethod
    def library(cls, library_id: str) -> "NotFound":
        """The error for a library that does not exist; it says how one is made."""
        return cls(absent_library(library_id))


class Conflict(LibraryError):
    """An id is taken, or the present state does not allow the request."""


class TextChanged(Conflict):
    """A stored text changed while the request was embedded; the request may be sent again."""


class ModelMismatch(Conflict):
    """A request names another embedding model than the library's."""


class ModelChanged(ModelMismatch):
    """The library's model changed while the request was embedded; the request may be sent again."""


class TooSlow(LibraryError):
    """The time that a request may take is up."""


class PreconditionFailed(LibraryError):
    """The resource has changed since the client read it, or exists where the request is to create it."""
