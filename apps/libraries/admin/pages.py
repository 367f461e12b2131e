"""The pages of the admin: libraries, documents and chunks, to look at, to correct and to delete.

None costs more than what it shows: lists are read by key and show the beginning of a text, counts come from subqueries
on indexes, and nothing offers all chunks to choose from.
"""

from typing import Any

import numpy as np
from django.contrib import admin
from django.db.models import Count, Model, OuterRef, QuerySet, Subquery
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce, Left
from django.http import HttpRequest
from django.template.defaultfilters import truncatechars
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.engine.indexes.registry import AUTO, chosen_kind
from apps.engine.metrics import row_norms
from apps.engine.vectors import Float32
from apps.libraries.admin.base import RowAdmin
from apps.libraries.admin.forms import ChunkForm, DocumentForm, LibraryForm
from apps.libraries.models import Change, Chunk, Document, Embedding, Library
from apps.libraries.selectors import reembedding, reembedding_data, vector_array

admin.site.site_header = admin.site.site_title = "vectordb"
admin.site.index_title = "Administration"
admin.site.site_url = "/api/v1/"

_LIBRARIES_OFFERED = 20
_EXCERPT = 120
_FIRST_CHUNKS = 10
_FIRST_VALUES = 8
_MOST_BARS = 256
# The width of a bar of the sketch and its greatest height, in the sketch's own units.
_STEP, _HALF = 3, 30


class LibraryFilter(admin.SimpleListFilter):
    """Offers the first libraries by id, and the one that is chosen."""

    title = "library"
    parameter_name = "library"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        ids = Library.objects.order_by("public_id").values_list("public_id", flat=True)[:_LIBRARIES_OFFERED]
        if len(ids) == _LIBRARIES_OFFERED:
            self.title = f"library (the first {_LIBRARIES_OFFERED})"
        return [(public_id, public_id) for public_id in dict.fromkeys([*ids, *filter(None, [self.value()])])]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        # By key, which an index has in order. The key of no library is none.
        key = Library.objects.filter(public_id=self.value()).values("pk")
        return queryset if self.value() is None else queryset.filter(library=Subquery(key))


class DocumentFilter(admin.SimpleListFilter):
    """Offers only the document that is chosen, on whose page the choice is made: there may be very many."""

    title = "document"
    parameter_name = "document"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = Document.objects.filter(pk=self._key()).values_list("public_id", flat=True)
        return [] if self.value() is None else [(self.value() or "", names.first() or "(deleted)")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.value() is None else queryset.filter(document=self._key())

    def _key(self) -> int:
        text = self.value() or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0


def _count_of(model: type[Model], field: str) -> Coalesce:
    """The number of rows of `model` whose `field` is the row at hand."""
    found = model._default_manager.filter(**{field: OuterRef("pk")}).order_by().values(field).annotate(n=Count("*"))
    return Coalesce(Subquery(found.values("n")), 0)


def _link_to_list(model: str, text: str, **filters: Any) -> SafeString:
    url = reverse(f"admin:libraries_{model}_changelist", query=filters)
    return format_html('<a href="{}">{}</a>', url, text)


@admin.register(Library)
class LibraryAdmin(RowAdmin):
    """Libraries with their counts; `indexing` adds the state of their index."""

    form = LibraryForm
    library_id = "public_id"
    list_display = ["public_id", "name", "dimension", "metric", "index", "document_count", "chunk_count", "revision"]
    sortable_by = ("public_id", "name", "dimension", "metric", "document_count", "chunk_count")
    search_fields = ("public_id", "name", "description")
    search_help_text = "Part of an id, a name or a description."
    fields_shown = ("public_id", "name", "description", "dimension", "metric", "index_type", "metadata")
    state = ("document_count", "chunk_count", "vectors_by", "index", "revision", "created_at", "updated_at")
    more_fieldsets = {"State": state}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Library]:
        newest = Change.objects.filter(library_key=OuterRef("pk")).order_by("-seq")
        libraries: QuerySet[Library] = super().get_queryset(request)
        return libraries.annotate(
            document_total=_count_of(Document, "library"),
            chunk_total=_count_of(Chunk, "library"),
            newest_change=Coalesce(Subquery(newest.values("seq")[:1]), 0),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Library | None = None) -> list[str]:
        if obj is None:
            return []
        fixed = ["public_id", "metric", *([] if obj.dimension is None else ["dimension"])]
        return [*fixed, *self.more_fieldsets["State"]]

    def belonging(self, rows: QuerySet[Library]) -> list[QuerySet[Any]]:
        keys = rows.values("pk")
        return [Document.objects.filter(library__in=keys), Chunk.objects.filter(library__in=keys)]

    @admin.display(description="documents", ordering="document_total")
    def document_count(self, library: Any) -> SafeString:
        return _link_to_list("document", f"{library.document_total:,}", library=library.public_id)

    @admin.display(description="chunks", ordering="chunk_total")
    def chunk_count(self, library: Any) -> SafeString:
        return _link_to_list("chunk", f"{library.chunk_total:,}", library=library.public_id)

    @admin.display(description="embedding model")
    def vectors_by(self, library: Library) -> str:
        model = "none" if library.embedding is None else " ".join(library.embedding)
        row = reembedding(library_key=library.pk)
        if row is None:
            return model
        move = reembedding_data(row)
        error = f" ({row.error})" if row.error else ""
        return f"{model}; moving to {row}: {move['state']}, {move['embedded']:,} of {move['chunks']:,} chunks{error}"

    def index(self, library: Any) -> str:
        chosen = chosen_kind(library.index_type, library.chunk_total, library.dimension or 0)
        return f"auto ({chosen})" if library.index_type == AUTO else chosen

    def revision(self, library: Any) -> str:
        return f"{library.newest_change:,}"

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change and "index_type" in form.changed_data and obj.index_params:
            # Parameters belong to a type.
            obj.index_params = {}
            form.changed_data.append("index_params")
        super().save_model(request, obj, form, change)


@admin.register(Document)
class DocumentAdmin(RowAdmin):
    """Documents with the first of their chunks. A document comes with chunks, so none is added here."""

    form = DocumentForm
    is_added = False
    list_display = ("public_id", "library", "excerpt", "chunk_count", "updated_at")
    list_filter = (LibraryFilter,)
    search_fields = ("^public_id", "title", "source")
    search_help_text = "The beginning of an id, or words of a title or source."
    readonly_fields = ("public_id", "library", "created_at", "updated_at", "chunk_count", "first_chunks")
    fields_shown = ("library", "public_id", "title", "source", "metadata", "created_at", "updated_at")
    more_fieldsets = {"Chunks": ("chunk_count", "first_chunks")}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Document]:
        documents = super().get_queryset(request).select_related("library")
        counted: QuerySet[Document] = documents.annotate(chunk_total=_count_of(Chunk, "document"))
        return _cut(counted, "title", "source", "metadata") if _is_list(request) else counted

    def belonging(self, rows: QuerySet[Document]) -> list[QuerySet[Any]]:
        return [Chunk.objects.filter(document__in=rows.values("pk"))]

    @admin.display(description="title")
    def excerpt(self, document: Any) -> str:
        return truncatechars(document.beginning, _EXCERPT)

    @admin.display(description="number of chunks")
    def chunk_count(self, document: Any) -> SafeString:
        return _link_to_list("chunk", f"{document.chunk_total:,}", document=document.pk)

    @admin.display(description="first chunks")
    def first_chunks(self, document: Any) -> SafeString:
        chunks = Chunk.objects.filter(document=document.pk).order_by("position", "id")
        context = {
            "chunks": _cut(chunks, "text", "metadata")[:_FIRST_CHUNKS],
            "more": document.chunk_total > _FIRST_CHUNKS,
            "all": _link_to_list("chunk", "All chunks", document=document.pk),
        }
        return render_to_string("admin/libraries/first_chunks.html", context)


@admin.register(Chunk)
class ChunkAdmin(RowAdmin):
    """Chunks with a summary of their embedding. A chunk needs a vector to be found, so none is added here."""

    form = ChunkForm
    is_added = False
    list_display = ("public_id", "library", "document", "excerpt")
    list_filter = (LibraryFilter, DocumentFilter)
    search_fields = ("^public_id", "text")
    search_help_text = "The beginning of an id, or words of a text. In a large database, id:… looks at ids only."
    readonly_fields = ("public_id", "library", "document", "position", "created_at", "updated_at", "embedding")
    fields_shown = ("library", "document", "position", "public_id", "text", "metadata")
    more_fieldsets = {"Embedding": ("embedding",), "Times": ("created_at", "updated_at")}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Chunk]:
        chunks: QuerySet[Chunk] = super().get_queryset(request).select_related("library", "document")
        return _cut(chunks, "text", "metadata") if _is_list(request) else chunks

    def get_ordering(self, request: HttpRequest) -> list[str | Combinable]:
        return ["position", "id"] if DocumentFilter.parameter_name in request.GET else ["id"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Chunk], search_term: str
    ) -> tuple[QuerySet[Chunk], bool]:
        if search_term.startswith("id:"):
            found = Chunk.objects.filter(public_id__startswith=search_term.removeprefix("id:").strip())
            return queryset.filter(pk__in=found.order_by().values("pk")), False
        return super().get_search_results(request, queryset, search_term)

    @admin.display(description="text")
    def excerpt(self, chunk: Any) -> str:
        return truncatechars(chunk.beginning, _EXCERPT)

    @admin.display(description="vector")
    def embedding(self, chunk: Chunk) -> SafeString:
        stored = Embedding.objects.filter(chunk=chunk, generation=chunk.library.generation).first()
        summary = None if stored is None else _summary(vector_array(stored.vector))
        return render_to_string("admin/libraries/embedding.html", {"summary": summary})


def _is_list(request: HttpRequest) -> bool:
    return request.resolver_match is not None and str(request.resolver_match.url_name).endswith("_changelist")


def _cut(rows: QuerySet[Any], text: str, *unread: str) -> QuerySet[Any]:
    """Read only the `beginning` of a text, and nothing of the columns `unread`."""
    cut: QuerySet[Any] = rows.annotate(beginning=Left(text, _EXCERPT + 1)).defer(text, *unread)
    return cut


def _summary(vector: Float32) -> dict[str, Any]:
    """What is shown of a vector [dimension], with a sketch of its components as an SVG path."""
    groups = np.array_split(vector.astype(np.float64), min(len(vector), _MOST_BARS))
    bars = [group[np.argmax(np.abs(group))] for group in groups]
    scale = _HALF / (max(map(abs, bars)) or 1.0)
    return {
        "dimension": len(vector),
        "norm": f"{row_norms(vector[np.newaxis])[0]:.6g}",
        "least": f"{vector.min():.6g}",
        "most": f"{vector.max():.6g}",
        "values": [f"{value:.6g}" for value in vector[:_FIRST_VALUES]],
        "more": max(len(vector) - _FIRST_VALUES, 0),
        "each": -(-len(vector) // len(bars)),
        "width": _STEP * len(bars),
        "height": 2 * _HALF,
        "path": "".join(f"M{_STEP * (i + 0.5):g} {_HALF}v{-bar * scale:.1f}" for i, bar in enumerate(bars)),
    }
