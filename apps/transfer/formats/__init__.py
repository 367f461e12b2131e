"""The formats of files, one module each behind the interface in `base`; imported when the format is used."""

from importlib import import_module
from pathlib import PurePath
from typing import Final

from apps.libraries.errors import Invalid
from apps.transfer.formats.base import Format

# The class of each, in the module of its name.
FORMATS: Final = {"jsonl": "Jsonl", "zip": "Zip", "parquet": "Parquet", "csv": "Csv"}
EXPORT_FORMATS: Final = ("jsonl", "zip", "parquet")
MEDIA_TYPES: Final = {
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/zip": "zip",
    "application/vnd.apache.parquet": "parquet",
    "text/csv": "csv",
}


def format_of(name: str) -> Format:
    """The format of that name; raises Invalid where there is none, or what it needs is not installed."""
    if name not in FORMATS:
        raise Invalid(f"There is no format {name!r}. There are: {', '.join(FORMATS)}.")
    found: Format = getattr(import_module(f"{__name__}.{name}"), FORMATS[name])()
    found.check_installed()
    return found


def format_of_file(name: str) -> str:
    """The name of the format that a file's name says; raises Invalid."""
    suffix = PurePath(name).suffix.lower().removeprefix(".")
    suffix = {"ndjson": "jsonl", "pq": "parquet"}.get(suffix, suffix)
    if suffix not in FORMATS:
        raise Invalid(f"The name {name!r} does not say which format it is. There are: {', '.join(FORMATS)}.")
    return suffix
