"""Rows of a source, written to a library batch by batch, each in a transaction with a note of how far it is."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, NamedTuple, Self, TypeAlias, TypeVar

from pydantic import ValidationError

from apps.libraries import selectors
from apps.libraries.errors import Conflict, Fault, Invalid, LibraryError, ModelMismatch, NotFound
from apps.libraries.imported import ChunkImport, DocumentImport, Mode, parse_chunks, parse_documents
from apps.libraries.inputs import Embedding, LibraryCreate, LibraryUpdate
from apps.libraries.models import Library
from apps.libraries.services.imports import ImportResult, import_rows
from apps.libraries.services.libraries import create_library, update_library
from apps.libraries.validation import faults_of
from apps.transfer.rows import Batch, LibraryData, Source

# How many refused rows a report has; it counts all of them.
MOST_REFUSALS: Final = 100
_PLACE = re.compile(r"/(documents|chunks)/(\d+)(/.*)?")
_NUMBER = re.compile("[0-9]+")
_Row = TypeVar("_Row", ChunkImport, DocumentImport)


@dataclass(frozen=True)
class Report:
    """What became of the rows: how many chunks are new, replaced and left as they were, how many documents were
    written, and how many rows were refused, the first of them with their places and the reasons."""

    created: int = 0
    updated: int = 0
    left: int = 0
    documents: int = 0
    refused: int = 0
    refusals: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """The report that `data` was made of."""
        return cls(**{**data, "refusals": tuple(data.get("refusals", ()))})

    def data(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self) | {"refusals": list(self.refusals)}

    def plus(self, result: ImportResult, refused: Mapping[str, Sequence[Fault]]) -> Self:
        """The report with what became of another batch."""
        room = MOST_REFUSALS - len(self.refusals)
        listed = [refusal(at, faults) for at, faults in list(refused.items())[:room]]
        return replace(
            self,
            created=self.created + result.created,
            updated=self.updated + result.updated,
            left=self.left + result.left,
            documents=self.documents + result.documents,
            refused=self.refused + len(refused),
            refusals=(*self.refusals, *listed),
        )


def refusal(at: str, faults: Sequence[Fault]) -> dict[str, Any]:
    """A refused row as reports have it."""
    return {"at": at, "errors": [fault._asdict() for fault in faults]}


Save: TypeAlias = Callable[[Report, Batch, Mapping[str, Sequence[Fault]]], None]


def open_library(library_id: str, library: LibraryData, *, create: bool) -> Library:
    """The library that rows are to be written to; made by `library`, what is known of it where they come from, if
    `create` says so and it does not exist. Raises NotFound, Invalid, and ModelMismatch where the rows cannot be those
    of the library."""
    try:
        row = selectors.library_row(library_id)
    except NotFound:
        if not create:
            raise
        return make_library(library_id, library)
    _check_fit(row, library)
    if row.takes_model and (embedding := library.get("embedding")):
        bind = LibraryUpdate(embedding=Embedding.model_validate(embedding))
        return update_library(library_id=library_id, update=bind)
    return row


def make_library(library_id: str, library: LibraryData) -> Library:
    """Make the library of rows by what is known of it where they come from. Raises Invalid, Conflict where there is
    one."""
    try:
        make = LibraryCreate.model_validate({"name": library_id, **_known(library), "id": library_id})
    except ValidationError as error:
        faults = faults_of(error)
        reasons = "; ".join(f"{fault.pointer.removeprefix('/')} {fault.detail}" for fault in faults)
        raise Invalid(f"The library {library_id!r} cannot be made: {reasons}.", faults) from None
    return create_library(create=make)


def _known(library: LibraryData) -> dict[str, Any]:
    """What the fields of a new library are made of: null stands for what is left out."""
    return {name: value for name, value in library.items() if value is not None and name in LibraryCreate.model_fields}


def _check_fit(row: Library, library: LibraryData) -> None:
    dimension, metric = library.get("dimension"), library.get("metric")
    if dimension and row.dimension and dimension != row.dimension:
        detail = f"The vectors have {dimension} components, and those of the library {row.public_id!r} {row.dimension}."
        raise Invalid(f"{detail} Import them into another library.")
    if metric and metric != row.metric:
        detail = f"The vectors are compared by {metric}, and those of the library {row.public_id!r} by {row.metric}."
        raise Invalid(f"{detail} Import them into another library.")
    embedding = library.get("embedding")
    if embedding and row.embedding and embedding != row.embedding._asdict():
        raise ModelMismatch(
            f"The vectors are those of {' '.join(embedding.values())}, and the library {row.public_id!r} has those of "
            f"{' '.join(row.embedding)}. Import them into another library."
        )


def import_source(
    *,
    library_id: str,
    source: Source,
    mode: Mode = "upsert",
    report: Report | None = None,
    save: Save = lambda *_: None,
) -> Iterator[tuple[Report, Batch]]:
    """Write the rows of `source`; yields after each batch what became of all so far, and the batch.

    What cannot be stored is left out and reported. `save` is called in the transaction of each batch, with the report
    as it is then, the batch, and what was refused of it, by places in their order: who keeps the report, with the
    batch's `next`, goes on from there after a crash, and nothing is stored twice.
    Raises NotFound, ModelMismatch, Invalid where no vector of the first batch fits the library, and what the source and
    the embedding provider raise.
    """
    write = _Writer(library_id, mode, save)
    report, is_first = report or Report(), True
    parsed = map(_parse, source.batches)
    for batch in _ahead(parsed) if source.runs_in_threads else parsed:
        report = write.batch(batch, report, is_first)
        is_first = False
        yield report, batch.batch


class _Parsed(NamedTuple):
    """A batch, its rows that may be stored, by their places, and what is wrong with the others."""

    batch: Batch
    documents: Mapping[str, DocumentImport]
    chunks: Mapping[str, ChunkImport]
    faults: Mapping[str, Sequence[Fault]]


def _parse(batch: Batch) -> _Parsed:
    documents, refused_documents = parse_documents(batch.documents)
    chunks, refused_chunks = parse_chunks(batch.chunks)
    faults: dict[str, Sequence[Fault]] = {at: [Fault("", reason)] for at, reason in batch.refused.items()}
    return _Parsed(batch, documents, chunks, faults | refused_documents | refused_chunks)


def _ahead(items: Iterator[_Parsed]) -> Iterator[_Parsed]:
    """The items, each made by a thread while the one before it is stored, which the database does without Python."""
    with ThreadPoolExecutor(1, "import") as thread:
        following = thread.submit(next, items, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, items, None)
            yield item


@dataclass(frozen=True)
class _Writer:
    library_id: str
    mode: Mode
    save: Save

    def batch(self, parsed: _Parsed, report: Report, is_first: bool) -> Report:
        """Write what can be stored of a batch; return the report with what became of it."""
        batch, documents, chunks, faults = parsed
        while True:
            # Chosen again, without what was refused.
            some_documents, some_chunks = self._distinct(documents), self._distinct(chunks)
            try:
                return self._write(some_documents, some_chunks, len(chunks), faults, batch, report)
            except (Invalid, Conflict) as error:
                found = _faults_by_place(error, list(some_documents), list(some_chunks))
            if is_first and (detail := _misfit(found, some_chunks)):
                raise Invalid(f"The vectors do not fit the library {self.library_id!r}: each {detail}.")
            faults = {**faults, **found}
            documents = {at: one for at, one in documents.items() if at not in found}
            chunks = {at: one for at, one in chunks.items() if at not in found}

    def _write(
        self,
        documents: Mapping[str, DocumentImport],
        chunks: Mapping[str, ChunkImport],
        chunk_count: int,
        faults: Mapping[str, Sequence[Fault]],
        batch: Batch,
        report: Report,
    ) -> Report:
        # Rows whose id comes again in the batch.
        doubles = chunk_count - len(chunks)
        twice = ImportResult(updated=doubles) if self.mode == "upsert" else ImportResult(left=doubles)
        after, faults = report, _in_order(faults, batch)

        def before_commit(result: ImportResult) -> None:
            nonlocal after
            after = report.plus(result + twice, faults)
            self.save(after, batch, faults)

        import_rows(
            library_id=self.library_id,
            documents=list(documents.values()),
            chunks=list(chunks.values()),
            mode=self.mode,
            before_commit=before_commit,
        )
        return after

    def _distinct(self, rows: Mapping[str, _Row]) -> dict[str, _Row]:
        """One row of each id: the last one where rows replace others, else the first."""
        if len({row.id for row in rows.values()}) == len(rows):
            return dict(rows)
        by_id: dict[str, str] = {}
        for at, row in rows.items():
            if self.mode == "upsert" or row.id not in by_id:
                by_id[row.id] = at
        chosen = set(by_id.values())
        return {at: row for at, row in rows.items() if at in chosen}


def _in_order(faults: Mapping[str, Sequence[Fault]], batch: Batch) -> dict[str, Sequence[Fault]]:
    """The faults in the order of their places: by what is counted there, such as lines of a file, and by numbers."""
    if not faults:
        return {}
    counted: dict[str, int] = {}
    for at in (*batch.documents, *batch.chunks, *batch.refused):
        counted.setdefault(_split_place(at)[0], len(counted))

    def order(at: str) -> tuple[int, int]:
        what, number = _split_place(at)
        return counted[what], number

    return dict(sorted(faults.items(), key=lambda item: order(item[0])))


def _split_place(at: str) -> tuple[str, int]:
    found = _NUMBER.search(at)
    return (at, 0) if found is None else (at[: found.start()], int(found[0]))


def _faults_by_place(
    error: LibraryError, documents: Sequence[str], chunks: Sequence[str]
) -> dict[str, Sequence[Fault]]:
    """The faults of rows, by their places. Raises `error` unless all are of rows."""
    found: defaultdict[str, list[Fault]] = defaultdict(list)
    for fault in error.faults:
        place = _PLACE.fullmatch(fault.pointer)
        if place is None:
            raise error
        at = (documents if place[1] == "documents" else chunks)[int(place[2])]
        found[at].append(Fault(place[3] or "", fault.detail))
    if not found:
        raise error
    return dict(found)


def _misfit(found: Mapping[str, Sequence[Fault]], chunks: Mapping[str, ChunkImport]) -> str | None:
    """What is wrong with all vectors of several chunks, where that is their dimension."""
    with_vector = [at for at, chunk in chunks.items() if chunk.brings_vector]
    details = [fault.detail for at in with_vector for fault in found.get(at, ()) if fault.pointer == "/embedding"]
    is_dimension = len(details) == len(with_vector) > 1 and len(set(details)) == 1 and "components" in details[0]
    return details[0] if is_dimension else None
