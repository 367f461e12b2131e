"""The admin's pages of libraries, with the state of their index as `stats` tells it."""

import json
from typing import Any

from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.indexing.stats import library_stats
from apps.libraries.admin import RowAdmin, link_to_list
from apps.libraries.expiry import live_chunks, live_documents
from apps.libraries.forms import LibraryForm
from apps.libraries.models import Chunk, Document, Library
from apps.libraries.services.libraries import delete_library


def _count_of(rows: QuerySet[Any]) -> Coalesce:
    """The number of those of `rows` that are of the library at hand."""
    found = rows.filter(library=OuterRef("pk")).order_by().values("library").annotate(n=Count("*"))
    return Coalesce(Subquery(found.values("n")), 0)


@admin.register(Library)
class LibraryAdmin(RowAdmin):
    """Libraries. Dimension and metric are fixed when one is made."""

    form = LibraryForm
    list_display = ("public_id", "name", "dimension", "metric", "index_type", "document_count", "chunk_count")
    sortable_by = ("public_id", "name", "document_count", "chunk_count")
    search_fields = ("public_id", "name", "description")
    search_help_text = "Part of an id, a name or a description."
    editable = ("public_id", "name", "description", "dimension", "metric", "index_type", "metadata")
    shown = ("document_count", "chunk_count", "embedding", "created_at", "updated_at", "stats")
    deleted_along = ((Document, "library"), (Chunk, "library"))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return super(RowAdmin, self).has_add_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Library]:
        libraries: QuerySet[Library] = super().get_queryset(request)
        documents, chunks = live_documents(Document.objects.all()), live_chunks(Chunk.objects.all())
        return libraries.annotate(document_total=_count_of(documents), chunk_total=_count_of(chunks))

    def get_readonly_fields(self, request: HttpRequest, obj: Library | None = None) -> tuple[str, ...]:
        return () if obj is None else ("public_id", "dimension", "metric", *self.shown)

    def delete(self, row: Library) -> None:
        delete_library(library_id=row.public_id)

    @admin.display(description="documents", ordering="document_total")
    def document_count(self, library: Any) -> SafeString:
        return link_to_list(Document, f"{library.document_total:,}", library=library.pk)

    @admin.display(description="chunks", ordering="chunk_total")
    def chunk_count(self, library: Any) -> SafeString:
        return link_to_list(Chunk, f"{library.chunk_total:,}", library=library.pk)

    def embedding(self, library: Library) -> str:
        return "none" if library.embedding is None else " ".join(library.embedding)

    def stats(self, library: Library) -> SafeString:
        return format_html("<pre>{}</pre>", json.dumps(library_stats(library_id=library.public_id), indent=2))
