"""What the engine refuses.

EngineError
├── InvalidVector     a row that cannot be stored or searched; `.row` says which
├── InvalidParameter  an unknown index type, metric or parameter; `.name` says which
├── InvalidFilter     a metadata filter that breaks a rule; `.path` says where in it
└── Damaged           a file of an index is missing, corrupt, or of another version or library
    └── Superseded    an index of another generation of the library's vectors
"""

import errno

# The process, or the machine, has no file descriptors or no memory left.
EXHAUSTED = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOMEM])


class EngineError(ValueError):
    """Base of all errors that the engine raises on purpose."""


class InvalidVector(EngineError):
    """Row `row` of the given array cannot be used, for `reason`."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"vector {row}: {reason}")
        self.row = row
        self.reason = reason


class InvalidParameter(EngineError):
    """The parameter `name` cannot be used, for `reason`."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class InvalidFilter(EngineError):
    """The filter cannot be used, for `reason`; `path` leads there, by the keys and list positions of its JSON."""

    def __init__(self, path: tuple[str | int, ...], reason: str) -> None:
        super().__init__(f"filter{''.join(f'/{step}' for step in path)}: {reason}")
        self.path = path
        self.reason = reason


class Damaged(EngineError):
    """A file of an index cannot be used; the message says which, and why. Indexes are rebuilt from the database."""


class Superseded(Damaged):
    """Nothing is wrong with an index but that it is of another generation of the library's vectors, or of the time
    before there were any, or after."""


def is_exhaustion(error: BaseException) -> bool:
    """Whether an error says that there are no means left for now, and so nothing of the file that was to be used."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in EXHAUSTED)
