"""Files of a library: export and import."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from vectordb_client import _routes as routes
from vectordb_client._binding import Resource, operation
from vectordb_client._core import Steps, build_request, without_none
from vectordb_client.errors import InvalidArgument
from vectordb_client.jobs import server_job

J = TypeVar("J")
_EXPORTED = ("jsonl", "zip", "parquet")
_IMPORTED = (*_EXPORTED, "csv")


class FileMethods(Resource, Generic[J]):
    """Methods of a library: to and from files."""

    id: str
    _job: type[Any]

    @operation
    def export(
        self,
        file: str | Path,
        *,
        format: Literal["jsonl", "zip", "parquet"] | None = None,
        overwrite: bool = False,
    ) -> Steps[Path]:
        """Write the library to a file, all of one state, in the format that its name says; return its path.

        A file that exists is replaced with `overwrite=True` alone. The file has its name when it is whole.

        >>> lib.export(folder / "library.jsonl").read_text().count('"text"')
        3
        """
        path = Path(file)
        query = {"format": format or _format(path, _EXPORTED)}
        if path.exists() and not overwrite:
            raise InvalidArgument(f"file: {str(path)!r} exists; overwrite=True replaces it")
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            yield from self._session.call(build_request(routes.export_library, self.id, query=query, sink=draft))
            return draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @operation
    def import_(
        self,
        file: str | Path,
        *,
        format: Literal["jsonl", "zip", "parquet", "csv"] | None = None,
        mode: Literal["upsert", "insert", "skip"] = "upsert",
        create: bool = False,
        columns: Mapping[str, str] | None = None,
    ) -> Steps[J]:
        """Write the rows of a file to the library, which `create` makes if it is not there. `wait()` of the result
        waits for it; `result` of what that returns tells how many rows were stored and which were refused.

        `mode` says what becomes of rows whose ids are in use; `columns` names those of a table, `{"text": "body"}`.

        >>> client.library("copy").import_(lib.export(folder / "a.zip"), create=True).wait().result["created"]
        3
        """
        path = Path(file)
        query = without_none(
            format=format or _format(path, _IMPORTED),
            mode=mode,
            create="true" if create else None,
            columns=",".join(f"{name}={column}" for name, column in columns.items()) if columns else None,
        )
        request = build_request(
            routes.import_rows, self.id, query=query, source=path, media_type="application/octet-stream"
        )
        answer = yield from self._session.call(request)
        job: J = server_job(self, self._job, answer.json())
        return job


def _format(path: Path, known: tuple[str, ...]) -> str:
    format = path.suffix.removeprefix(".").lower()
    if format not in known:
        raise InvalidArgument(f"format: the name {path.name!r} says none of {', '.join(known)}")
    return format
