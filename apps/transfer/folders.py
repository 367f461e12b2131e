"""Files of text as documents: each is split into chunks, which get vectors by the library's model.

A document's id is the path of its file below the folder, so the same folder again changes what has changed.
"""

import contextlib
import hashlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from django.conf import settings
from pydantic import ValidationError

from apps.installation import install_command
from apps.libraries.errors import Fault, Invalid, LibraryError
from apps.libraries.inputs import DocumentInput
from apps.libraries.services.documents import replace_document
from apps.libraries.services.imports import ImportResult
from apps.libraries.validation import faults_of
from apps.transfer.importing import Report, refusal
from apps.transfer.job_context import JobContext
from apps.transfer.refusals import RefusalFile, refusal_progress

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
    with _refusing("HTML"):
        text = trafilatura.extract(page, include_comments=False, favor_recall=True)
        metadata = trafilatura.extract_metadata(page)
    return Text((metadata.title or "") if metadata else "", text or "")


def _read_pdf(path: Path) -> Text:
    from pypdf import PdfReader

    with _refusing("PDF"):
        reader = PdfReader(path)
        # Most of those that are encrypted say what may be done with them, and have an empty password.
        if reader.is_encrypted and not reader.decrypt(""):
            raise ValueError("it needs a password; import a copy without one")
        title = reader.metadata.title if reader.metadata else None
        return Text(str(title or ""), "\n\n".join(page.extract_text() for page in reader.pages))


@contextlib.contextmanager
def _refusing(kind: str) -> Iterator[None]:
    """Make of what a package raises at a file, which may be anything, the reason why the file is refused."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"cannot be read as {kind}: {str(error) or type(error).__name__}") from None


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


@dataclass(frozen=True)
class Folder:
    """The files of a folder, by their names in the order of these, and the names of what is `skipped`; the first `done`
    of the files a job has imported before, of which it has the `report`."""

    files: Sequence[tuple[str, Path]]
    skipped: Sequence[str]
    done: int
    report: Report


def open_folder(job: JobContext, root: Path) -> Folder:
    """Find the files below a folder, or one file, that a job is to import: all of them again where those that it has
    imported are not as they were, or others have come between. Raises Invalid where a package is needed that is not
    installed."""
    base = root if root.is_dir() else root.parent
    found = sorted((path.relative_to(base).as_posix(), path, is_read) for path, is_read in _find(root))
    files = [(name, path) for name, path, is_read in found if is_read]
    skipped = [name for name, _, is_read in found if not is_read]
    for suffix in {path.suffix.lower() for _, path in files}:
        _check_installed(suffix)
    report, last = Report.of(job.progress.get("report", {})), job.progress.get("next")
    before = [file for file in files if last is not None and file[0] <= last]
    if _state(before).hexdigest() == job.progress.get("state"):
        return Folder(files, skipped, len(before), report)
    # Each file is counted once. What it has stored of them is not stored again, so these counts go on.
    return Folder(files, skipped, 0, Report(created=report.created, updated=report.updated))


def import_folder(
    job: JobContext, folder: Folder, refusals: RefusalFile | None = None
) -> Iterator[tuple[Report, int, int]]:
    """Write the files of a folder to the library of a job, each as a document; yields after each the report so far, and
    how many of how many are done. Files that are refused are written to `refusals`. Raises NotFound for the library,
    and what the embedding provider raises."""
    report, state = folder.report, _state(folder.files[: folder.done])
    total = len(folder.files)
    if refusals is not None and not folder.done:
        refusals.clear()
    job.advance(folder.done, total, job.progress | refusal_progress(refusals, job))
    for done, (name, path) in enumerate(folder.files[folder.done :], folder.done + 1):
        # As it is before it is read.
        state.update(_state_of_file(name, path))
        progress = partial(_advance, job, done, total, {"next": name, "state": state.hexdigest()}, refusals)
        try:
            report = _write(job.library, name, path, report, progress)
        except (ValueError, OSError, LibraryError) as error:
            if isinstance(error, LibraryError) and not error.faults:
                raise
            faults = _faults_of(error)
            report = report.plus(ImportResult(), {name: faults})
            progress(report, [refusal(name, faults) | {"id": name}])
        if refusals is not None:
            refusals.keep()
        yield report, done, total


def _state(files: Sequence[tuple[str, Path]]) -> Any:
    """A hash of which files there are, and of what tells that they have not changed."""
    return hashlib.sha256(b"".join(_state_of_file(name, path) for name, path in files))


def _state_of_file(name: str, path: Path) -> bytes:
    try:
        status = path.stat()
        found = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"
    except OSError:
        found = f"{name}\0\n"
    return found.encode(errors="surrogateescape")


def _advance(
    job: JobContext,
    done: int,
    total: int,
    place: dict[str, str],
    refusals: RefusalFile | None,
    report: Report,
    refused: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write how far a job is, with the file that it has done or refused."""
    job.advance(done, total, {**place, "report": report.data(), **refusal_progress(refusals, job, refused)})


def _faults_of(error: Exception) -> list[Fault]:
    """What is wrong with a file."""
    if isinstance(error, ValidationError):
        return faults_of(error)
    return [Fault("", str(error))]


def _find(root: Path) -> Iterator[tuple[Path, bool]]:
    """The files, and whether each is read: none of another kind, nothing behind a link, and nothing hidden."""
    if not root.is_dir():
        yield root, True
        return
    for path in root.iterdir():
        if path.name.startswith(".") or path.is_symlink():
            yield path, False
        elif path.is_dir():
            yield from _find(path)
        else:
            yield path, path.suffix.lower() in _READERS and path.is_file()


def _check_installed(suffix: str) -> None:
    package = _READERS[suffix][1]
    if package and importlib.util.find_spec(package) is None:
        command = install_command("extract")
        raise Invalid(f"Files of the kind {suffix} need the Python package {package}. Install it: {command}")


def _write(library_id: str, name: str, path: Path, report: Report, save: Callable[[Report], None]) -> Report:
    """Write a file; return the report with what became of it, which is saved in the same transaction."""
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"has more than {_LARGEST_FILE} bytes")
    title, text = _READERS[path.suffix.lower()][0](path)
    if not text.strip():
        raise ValueError("has no text")
    text = text.replace("\0", "")
    document = DocumentInput.model_validate(
        {"id": name, "title": title[: settings.LIMITS.text_bytes // 4], "source": name, "text": text}
    )

    def with_result(written: dict[str, Any]) -> Report:
        result = ImportResult(created=written["created"], updated=written["updated"], documents=1)
        return report.plus(result, {})

    data, _ = replace_document(
        library_id=library_id,
        document_id=name,
        document=document,
        before_commit=lambda written: save(with_result(written)),
    )
    return with_result(data)
