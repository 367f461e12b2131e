"""The paths of version 1. A path that is a word and could be an id keeps the id's methods.

All that comes after `documents/` or `chunks/` is an id, however its slashes were sent: Django gets paths decoded, and
some proxies decode them earlier. So no path may go on behind an id."""

from django.urls import path

from apps.api.v1 import audit, backups, chunks, documents, jobs, keys, libraries, query, transfer

_LIBRARY = "libraries/<str:library_id>"

# Queries come first: Django tries the patterns in order.
urlpatterns = [
    path(f"{_LIBRARY}/query", query.Query.as_view()),
    path(f"{_LIBRARY}/query/batch", query.QueryMany.as_view()),
    path("", libraries.Root.as_view(), name="root"),
    path("audit", audit.Audit.as_view()),
    path("backups", backups.Backups.as_view()),
    path("backups/<str:backup_id>", backups.Backup.as_view()),
    path("jobs", jobs.Jobs.as_view()),
    path("jobs/<str:job_id>", jobs.Job.as_view()),
    path("keys", keys.Keys.as_view()),
    path("keys/<str:key_id>", keys.Key.as_view()),
    path("keys/<str:key_id>/rotate", keys.KeyRotation.as_view()),
    path("keys/<str:key_id>/search-token", keys.SearchToken.as_view()),
    path("libraries", libraries.Libraries.as_view(), name="libraries"),
    path(_LIBRARY, libraries.Library.as_view()),
    path(f"{_LIBRARY}/stats", libraries.Stats.as_view()),
    path(f"{_LIBRARY}/reindex", libraries.Reindex.as_view()),
    path(f"{_LIBRARY}/reembed", libraries.Reembed.as_view()),
    path(f"{_LIBRARY}/export", transfer.Export.as_view()),
    path(f"{_LIBRARY}/import", transfer.Import.as_view()),
    path(f"{_LIBRARY}/documents", documents.Documents.as_view()),
    path(f"{_LIBRARY}/documents/batch", documents.DocumentBatch.as_view(), {"document_id": "batch"}),
    path(f"{_LIBRARY}/documents/<path:document_id>", documents.Document.as_view()),
    path(f"{_LIBRARY}/chunks", chunks.Chunks.as_view()),
    path(f"{_LIBRARY}/chunks/get", chunks.ChunkGet.as_view(), {"chunk_id": "get"}),
    path(f"{_LIBRARY}/chunks/delete", chunks.ChunkDelete.as_view(), {"chunk_id": "delete"}),
    path(f"{_LIBRARY}/chunks/update", chunks.ChunkUpdateMany.as_view(), {"chunk_id": "update"}),
    path(f"{_LIBRARY}/chunks/count", chunks.ChunkCount.as_view(), {"chunk_id": "count"}),
    path(f"{_LIBRARY}/chunks/list", chunks.ChunkList.as_view(), {"chunk_id": "list"}),
    path(f"{_LIBRARY}/chunks/fields", chunks.ChunkFields.as_view(), {"chunk_id": "fields"}),
    path(f"{_LIBRARY}/chunks/facets", chunks.ChunkFacets.as_view(), {"chunk_id": "facets"}),
    path(f"{_LIBRARY}/chunks/<path:chunk_id>", chunks.Chunk.as_view()),
]
