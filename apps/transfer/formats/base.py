"""The interface of a format."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, BinaryIO, ClassVar, Final

from apps.transfer.rows import Source
from apps.transfer.stored import StoredLibrary

# What a library's own fields take in a file at most.
LARGEST_HEAD: Final = 4 << 20


class Format(ABC):
    """A format of files. All are imported from; what is in EXPORT_FORMATS is exported to."""

    media_type: ClassVar[str]

    @abstractmethod
    def write(self, stored: StoredLibrary) -> Iterator[bytes]:
        """The parts of a file that has all of `stored`, in the order in which they are to be written."""

    @abstractmethod
    def read(self, file: BinaryIO, start: Any = None, columns: dict[str, str] | None = None) -> Source:
        """The rows of `file`, a file of the system; from `start` on, the `Batch.next` of an earlier read. `columns` are
        the names that a table has for our fields. Raises Invalid for a file that is not of this format, also while
        batches are read."""
