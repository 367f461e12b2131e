"""The formats of files, one module each behind the interface in `base`; imported when the format is used."""

from importlib import import_module
from pathlib import Path, PurePath
from typing import Final

from apps.installation import install_command
from apps.libraries.errors import Invalid
from apps.transfer.formats.base import Format

# The class of each, in the module of its name; what it needs besides is in the requirements of its name.
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
    try:
        found: Format = getattr(import_module(f"{__name__}.{name}"), FORMATS[name])()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "apps"):
            raise
        command = install_command(name)
        raise Invalid(f"The format {name} needs the Python package {package}. Install it: {command}") from None
    return found


def format_of_file(name: str) -> str:
    """The name of the format that the name of a file says that is to be read; raises Invalid."""
    suffix = _suffix(name)
    if suffix not in FORMATS:
        if name != "-" and not Path(name).exists():
            raise Invalid(f"There is no file or folder {name}.")
        raise Invalid(f"The name {name!r} does not say which format it is. There are: {', '.join(FORMATS)}.")
    return suffix


def format_to_write(name: str) -> str:
    """The name of the format that the name of a file says that is to be written; raises Invalid."""
    suffix = _suffix(name)
    if suffix not in EXPORT_FORMATS:
        what = "is one that is only read" if suffix in FORMATS else "does not say which format it is"
        raise Invalid(f"The name {name!r} {what}. There are: {', '.join(EXPORT_FORMATS)}.")
    return suffix


def _suffix(name: str) -> str:
    suffix = PurePath(name).suffix.lower().removeprefix(".")
    return {"ndjson": "jsonl", "pq": "parquet"}.get(suffix, suffix)
