"""The interface of a format."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, BinaryIO, ClassVar, Final

from apps.installation import install_command
from apps.libraries.errors import Invalid
from apps.transfer.rows import Source
from apps.transfer.stored import StoredLibrary

# What a library's own fields take in a file at most.
LARGEST_HEAD: Final = 4 << 20


class Format(ABC):
    """A format of files. What is `writable` is exported to; all are imported from."""

    media_type: ClassVar[str]
    is_writable: ClassVar[bool] = True
    # The package that it needs and the file of requirements that brings it; empty for none.
    package: ClassVar[str] = ""
    requirements: ClassVar[str] = ""

    @abstractmethod
    def write(self, stored: StoredLibrary) -> Iterator[bytes]:
        """The parts of a file that has all of `stored`, in the order in which they are to be written."""

    @abstractmethod
    def read(self, file: BinaryIO, start: Any = None, columns: dict[str, str] | None = None) -> Source:
        """The rows of `file`, which can be sought in; from `start` on, the `Batch.next` of an earlier read. `columns`
        are the names that a table has for our fields. Raises Invalid for a file that is not of this format, also while
        batches are read."""

    def check_installed(self) -> None:
        """Raise Invalid where the package that it needs is not installed."""
        if self.package and importlib.util.find_spec(self.package) is None:
            command = install_command(self.requirements)
            raise Invalid(f"This format needs the Python package {self.package}. Install it: {command}")
