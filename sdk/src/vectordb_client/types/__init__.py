"""What calls return: frozen dataclasses. Fields that a newer server adds are left out."""

from vectordb_client.types.chunks import (
    Chunk,
    Chunks,
    DocumentRef,
    Skipped,
    WriteResult,
    parse_chunk,
    parse_faults,
    parse_written,
)
from vectordb_client.types.documents import Diff, Document, FolderReport
from vectordb_client.types.fields import Facet, Facets, FieldSummaries, FieldSummary, TypeSummary, parse_fields
from vectordb_client.types.jobs import BackupInfo, JobInfo
from vectordb_client.types.keys import AuditEntry, KeyInfo, NewKey, SearchToken
from vectordb_client.types.libraries import IndexState, LibraryInfo, Stats
from vectordb_client.types.parsing import parse, parse_time
from vectordb_client.types.queries import Hit, Hits, QueryMeta, parse_hits
from vectordb_client.types.tables import Page
from vectordb_client.types.uploads import RowError, UploadReport

__all__ = [
    "AuditEntry",
    "BackupInfo",
    "Chunk",
    "Chunks",
    "Diff",
    "Document",
    "DocumentRef",
    "Facet",
    "Facets",
    "FieldSummaries",
    "FieldSummary",
    "FolderReport",
    "Hit",
    "Hits",
    "IndexState",
    "JobInfo",
    "KeyInfo",
    "LibraryInfo",
    "NewKey",
    "Page",
    "QueryMeta",
    "RowError",
    "SearchToken",
    "Skipped",
    "Stats",
    "TypeSummary",
    "UploadReport",
    "WriteResult",
    "parse",
    "parse_chunk",
    "parse_faults",
    "parse_fields",
    "parse_hits",
    "parse_time",
    "parse_written",
]
