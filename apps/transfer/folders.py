"""Files of text as documents: each is split into chunks, which get vectors by the library's model.

A document's id is the path of its file below the folder, so the same folder again changes what has changed.
"""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from django.conf import settings
from pydantic import ValidationError

from apps.installation import install_command
from apps.libraries.errors import Fault, Invalid, LibraryError
from apps.libraries.inputs import DocumentInput
from apps.libraries.services.documents import replace_document
from apps.libraries.services.imports import ImportResult
from apps.libraries.validation import fault_of
from apps.transfer.importing import Report
from apps.transfer.job_context import JobContext

# No text of this size is in a file of that one.
_LARGEST_FILE: Final = 256 << 20


class Text(NamedTuple):
    """What a file says: its title, empty where it has none, and its text."""

    title: str
    text: str


def _read_plain(path: Path) -> Text:
    try:
        return Text("", path.read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"is no text in UTF-8: {error.reason} at byte {error.start}") from None


def _read_markdown(path: Path) -> Text:
    text = _read_plain(path).text
    titles = (line.removeprefix("# ").strip() for line in text.splitlines() if line.startswith("# "))
    return Text(next(titles, ""), text)


def _read_html(path: Path) -> Text:
    import trafilatura

    page = path.read_bytes()
    text = trafilatura.extract(page, include_comments=False, favor_recall=True)
    metadata = trafilatura.extract_metadata(page)
    return Text((metadata.title or "") if metadata else "", text or "")


def _read_pdf(path: Path) -> Text:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(path)
        title = reader.metadata.title if reader.metadata else None
        return Text(str(title or ""), "\n\n".join(page.extract_text() for page in reader.pages))
    except (PyPdfError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"cannot be read as PDF: {error}") from None


_READERS: Final[dict[str, tuple[Callable[[Path], Text], str]]] = {
    ".txt": (_read_plain, ""),
    ".text": (_read_plain, ""),
    ".md": (_read_markdown, ""),
    ".markdown": (_read_markdown, ""),
    ".html": (_read_html, "trafilatura"),
    ".htm": (_read_html, "trafilatura"),
    ".pdf": (_read_pdf, "pypdf"),
}
SUFFIXES: Final = tuple(_READERS)


def import_folder(job: JobContext, root: Path) -> Iterator[tuple[Report, int, int]]:
    """Write the files below a folder, or one file, to the library of a job, each as a document; yields after each the
    report so far, and how many of how many are done. Raises Invalid where a package is needed that is not installed,
    NotFound for the library, and what the embedding provider raises."""
    base = root if root.is_dir() else root.parent
    files = sorted(_find(root), key=lambda path: path.relative_to(base).as_posix())
    for suffix in {path.suffix.lower() for path in files}:
        _check_installed(suffix)
    report = Report.of(job.progress.get("report", {}))
    last = job.progress.get("next")
    for done, path in enumerate(files, 1):
        name = path.relative_to(base).as_posix()
        if last is not None and name <= last:
            continue
        try:
            written = _write(job.library, name, path)
            result = ImportResult(created=written["created"], updated=written["updated"], documents=1)
            report = report.plus(result, {})
        except ValidationError as error:
            faults = [fault_of(item) for item in error.errors(include_url=False, include_input=False)]
            report = report.plus(ImportResult(), {name: faults})
        except (ValueError, OSError, LibraryError) as error:
            if isinstance(error, LibraryError) and not error.faults:
                raise
            report = report.plus(ImportResult(), {name: [Fault("", str(error))]})
        job.advance(done, len(files), {"next": name, "report": report.data()})
        yield report, done, len(files)


def _find(root: Path) -> Iterator[Path]:
    """The files that can be read; nothing behind a link, and nothing hidden."""
    if not root.is_dir():
        yield root
        return
    for path in root.iterdir():
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir():
            yield from _find(path)
        elif path.suffix.lower() in _READERS and path.is_file():
            yield path


def _check_installed(suffix: str) -> None:
    package = _READERS[suffix][1]
    if package and importlib.util.find_spec(package) is None:
        command = install_command("extract")
        raise Invalid(f"Files of the kind {suffix} need the Python package {package}. Install it: {command}")


def _write(library_id: str, name: str, path: Path) -> dict[str, int]:
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"has more than {_LARGEST_FILE} bytes")
    title, text = _READERS[path.suffix.lower()][0](path)
    if not text.strip():
        raise ValueError("has no text")
    text = text.replace("\0", "")
    document = DocumentInput.model_validate(
        {"id": name, "title": title[: settings.LIMITS.text_bytes // 4], "source": name, "text": text}
    )
    data, _ = replace_document(library_id=library_id, document_id=name, document=document)
    return data
