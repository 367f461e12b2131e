"""The documents of a library."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from vectordb_client import _routes as routes
from vectordb_client import types
from vectordb_client._binding import Async, Pages, Resource, Sync, listing, operation
from vectordb_client._core import UNSET, Answer, Steps, build_request, to_json, without_none, without_unset
from vectordb_client._rows import Columns, chunk_rows, to_rfc3339, with_chunks
from vectordb_client.errors import BadRequest, BodyTooLarge, InvalidArgument
from vectordb_client.filters import FilterLike, to_dict
from vectordb_client.types import Diff, Document, FolderReport, Page

# Of a folder, in one request: the server splits 2 MiB of text at most, and writes 2,000 chunks.
_FOLDER_FILES, _FOLDER_BYTES = 100, 1 << 20


class _Documents(Resource):
    """The documents of a library; each has chunks."""

    def __init__(self, runner: Any, library_id: str) -> None:
        super().__init__(runner)
        self.library_id = library_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.library_id!r})"

    @operation
    def put(
        self,
        id: str,
        *,
        text: str | None = None,
        chunks: Any = None,
        title: str | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        chunking: Mapping[str, int] | None = None,
        embedding: Mapping[str, str] | None = None,
        expires_at: datetime | str | None = None,
        profile: bool = False,
        if_match: str | None = None,
        create_only: bool = False,
    ) -> Steps[Diff]:
        """Make the document exactly this, of a text that the server splits, or of chunks.

        Chunks that are there already are kept, so only what changed is embedded. With `create_only`, a document that
        exists is PreconditionFailed.

        >>> lib.documents.put("handbook", text="First paragraph.", metadata={"lang": "en"})
        Diff(id='handbook', created=1, updated=0, unchanged=0, deleted=0)
        >>> lib.documents.put("handbook", text="First paragraph.", metadata={"lang": "en"})
        Diff(id='handbook', created=0, updated=0, unchanged=1, deleted=0)
        """
        body = _document_body(
            chunks,
            text=text,
            title=title,
            source=source,
            metadata=metadata,
            chunking=chunking,
            embedding=embedding,
            expires_at=expires_at,
            profile=profile or None,
        )
        request = build_request(
            routes.put_document,
            self.library_id,
            id,
            body=body,
            if_match=if_match,
            if_none_match="*" if create_only else None,
        )
        answer = yield from self._session.call(request)
        return types.parse(Diff, answer.json())

    @operation
    def create(
        self,
        id: str | None = None,
        *,
        text: str | None = None,
        chunks: Any = None,
        title: str | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        chunking: Mapping[str, int] | None = None,
        embedding: Mapping[str, str] | None = None,
        expires_at: datetime | str | None = None,
        profile: bool = False,
    ) -> Steps[Document]:
        """Create a document of a text or of chunks; an id that exists is a Conflict.

        >>> lib.documents.create(title="Note", text="Only this.").chunk_count
        1
        """
        body = _document_body(
            chunks,
            id=id,
            text=text,
            title=title,
            source=source,
            metadata=metadata,
            chunking=chunking,
            embedding=embedding,
            expires_at=expires_at,
            profile=profile or None,
        )
        answer = yield from self._session.call(build_request(routes.create_document, self.library_id, body=body))
        return types.parse(Document, answer.json())

    @operation
    def put_many(
        self,
        documents: Iterable[Mapping[str, Any]],
        *,
        mode: Literal["upsert", "insert"] = "upsert",
        embedding: Mapping[str, str] | None = None,
        profile: bool = False,
    ) -> Steps[list[Diff]]:
        """Write many documents in one transaction: dicts of what `put` takes, with `id`. With mode `insert`, an id that
        exists is a Conflict.

        >>> lib.documents.put_many([{"id": "handbook", "text": "First paragraph.", "metadata": {"lang": "en"}}])
        [Diff(id='handbook', created=0, updated=0, unchanged=1, deleted=0)]
        """
        if isinstance(documents, (str, Mapping)):
            raise InvalidArgument(f"documents: takes a list of dicts, not {type(documents).__name__}")
        bodies = [_body_of(document) for document in documents]
        options = to_json(without_none(mode=mode, embedding=embedding, profile=profile or None))
        return (yield from self._batch(options[:-1], bodies))

    @operation
    def get(self, id: str) -> Steps[Document]:
        """A document, with its `etag`; NotFound where there is none.

        >>> lib.documents.get("handbook").metadata
        {'lang': 'en'}
        """
        answer = yield from self._session.call(build_request(routes.get_document, self.library_id, id))
        return _document(answer)

    @listing
    def list(self, *, filter: FilterLike | None = None, page_size: int = 500) -> Pages[Document]:
        """All documents, or those whose own metadata match, read page by page while they are iterated over.

        >>> [document.id for document in lib.documents.list(filter=F("lang") == "en")]
        ['handbook']
        """
        query = {"filter": None if filter is None else json.dumps(to_dict(filter)), "limit": page_size}

        def page(cursor: str | None) -> Steps[Page[Document]]:
            request = build_request(routes.list_documents, self.library_id, query={**query, "cursor": cursor})
            answer = (yield from self._session.call(request)).json()
            return Page([types.parse(Document, item) for item in answer["items"]], answer["next_cursor"])

        return page

    @operation
    def update(
        self,
        id: str,
        *,
        title: str | Any = UNSET,
        source: str | Any = UNSET,
        metadata: Mapping[str, Any] | Any = UNSET,
        expires_at: datetime | str | Any | None = UNSET,
        if_match: str | None = None,
    ) -> Steps[Document]:
        """Change a document without its chunks; what is not given stays.

        >>> lib.documents.update("handbook", title="Handbook").title
        'Handbook'
        """
        body = without_unset(title=title, source=source, metadata=metadata, expires_at=to_rfc3339(expires_at))
        request = build_request(routes.update_document, self.library_id, id, body=body, if_match=if_match)
        return _document((yield from self._session.call(request)))

    @operation
    def delete(self, id: str, *, if_match: str | None = None) -> Steps[None]:
        """Delete a document and its chunks; NotFound where there is none.

        >>> lib.documents.delete("handbook")
        """
        yield from self._session.call(build_request(routes.delete_document, self.library_id, id, if_match=if_match))

    @operation
    def upload_folder(
        self,
        folder: str | Path,
        *,
        patterns: Sequence[str] = ("*.md", "*.rst", "*.txt"),
        prefix: str = "",
        metadata: Callable[[Path], Mapping[str, Any]] | Mapping[str, Any] | None = None,
        chunking: Mapping[str, int] | None = None,
        encoding: str = "utf-8",
    ) -> Steps[FolderReport]:
        """Put each text file of a folder and of those below it as a document; what has not changed costs next to
        nothing.

        The id is the path within the folder, with slashes, behind `prefix`; the title is the name of the file. Files
        that cannot be read or stored are in `errors` of the report. Hidden files are left out; documents of files that
        are gone stay.

        >>> report = lib.documents.upload_folder(folder, metadata={"lang": "en"})
        >>> [diff.id for diff in report.diffs], dict(report.errors)
        (['guide/start.md', 'notes.txt'], {})
        """
        root = Path(folder)
        if not root.is_dir():
            raise InvalidArgument(f"folder: {str(folder)!r} is no folder")
        diffs: dict[str, Diff] = {}
        errors: dict[str, str] = {}
        batch: dict[str, bytes] = {}
        for file in _files(root, patterns):
            id = prefix + file.relative_to(root).as_posix()
            try:
                fields = metadata(file) if callable(metadata) else metadata
                text = file.read_text(encoding)
                batch[id] = _document_body(None, id=id, text=text, title=file.name, metadata=fields, chunking=chunking)
            except (OSError, ValueError) as error:
                errors[id] = str(error)
            if len(batch) >= _FOLDER_FILES or sum(map(len, batch.values())) >= _FOLDER_BYTES:
                yield from self._put_bodies(batch, diffs, errors)
                batch = {}
        if batch:
            yield from self._put_bodies(batch, diffs, errors)
        return FolderReport(tuple(diffs.values()), errors)

    def _put_bodies(self, batch: dict[str, bytes], diffs: dict[str, Diff], errors: dict[str, str]) -> Steps[None]:
        """Put documents in one request, or each alone where the server refuses that, to find those that it refuses."""
        try:
            for diff in (yield from self._batch(b'{"mode":"upsert"', batch.values())):
                diffs[diff.id] = diff
        except (BadRequest, BodyTooLarge) as error:
            if len(batch) == 1:
                errors.update(dict.fromkeys(batch, str(error)))
                return
            for id, body in batch.items():
                yield from self._put_bodies({id: body}, diffs, errors)

    def _batch(self, begin: bytes, bodies: Iterable[bytes]) -> Steps[builtins.list[Diff]]:
        body = b'%b,"documents":[%b]}' % (begin, b",".join(bodies))
        answer = yield from self._session.call(build_request(routes.create_documents, self.library_id, body=body))
        return [_diff(item) for item in answer.json()["documents"]]


class Documents(Sync, _Documents):
    __doc__ = _Documents.__doc__


class AsyncDocuments(Async, _Documents):
    __doc__ = _Documents.__doc__


def _body_of(document: Mapping[str, Any]) -> bytes:
    if not isinstance(document, Mapping):
        raise InvalidArgument(f"a document is a dict such as {{'id': ..., 'text': ...}}, not {document!r}")
    return _document_body(**{"chunks": None, **document})


def _document_body(chunks: Any, expires_at: datetime | str | None = None, **fields: Any) -> bytes:
    """A document as JSON, its chunks from rows as `upsert` takes."""
    head = to_json(without_none(**fields, expires_at=to_rfc3339(expires_at)))
    if chunks is None:
        return head
    if isinstance(chunks, Sequence) and all(isinstance(one, str) for one in chunks):
        rows = chunk_rows(None, Columns(texts=chunks), makes_ids=False)
    else:
        rows = chunk_rows(chunks, Columns(), makes_ids=False)
    return with_chunks(head, rows)


def _files(root: Path, patterns: Sequence[str]) -> Iterator[Path]:
    for file in sorted({file for pattern in patterns for file in root.rglob(pattern)}):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts):
            yield file


def _document(answer: Answer) -> Document:
    return types.parse(Document, answer.json(), etag=answer.headers.get("etag"))


def _diff(item: Mapping[str, Any]) -> Diff:
    if "unchanged" in item:
        return types.parse(Diff, item)
    return Diff(item["id"], item["chunk_count"], 0, 0, 0, tuple(item["chunk_ids"]))
