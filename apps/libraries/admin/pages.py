"""The pages of the admin.

None costs more than what it shows: lists are read by key and show the beginning of a text, counts come from subqueries
on indexes, and nothing offers all chunks to choose from.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, Model, OuterRef, QuerySet, Subquery
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce, Left
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.engine.indexes.registry import AUTO, chosen_kind
from apps.engine.metrics import row_norms
from apps.engine.vectors import Float32
from apps.libraries.admin.deletion import LeanDeletion
from apps.libraries.admin.filters import DocumentFilter, LibraryFilter
from apps.libraries.admin.forms import ChunkForm, DocumentForm, LibraryForm
from apps.libraries.models import Change, Chunk, Document, Embedding, Library
from apps.libraries.selectors import reembedding, reembedding_data, vector_array

admin.site.site_header = admin.site.site_title = "vectordb"
admin.site.index_title = "Administration"
admin.site.site_url = "/api/v1/"

_EXCERPT = 120
_FIRST_CHUNKS = 10
_FIRST_VALUES = 8
_MOST_BARS = 256
# A bar takes so much of the width, and at most so much of the height, in the sketch's own units.
_STEP, _HALF = 3, 30


class _List(ChangeList):
    """A list that is sorted by what is offered only: Django takes any column from the address."""

    def get_ordering_field(self, field_name: Any) -> Any:
        return super().get_ordering_field(field_name) if field_name in (self.sortable_by or ()) else None


class _DocumentList(_List):
    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        return _beginnings(super().get_queryset(request, exclude_parameters), "title").defer("source", "metadata")


class _ChunkList(_List):
    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        return _beginnings(super().get_queryset(request, exclude_parameters), "text").defer("metadata")


class _Page(LeanDeletion):
    """What the pages share."""

    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER
    sortable_by: ClassVar[tuple[str, ...]] = ()
    list_class: ClassVar[type[ChangeList]] = _List

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return self.list_class

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        (name, options), *rest = self.sections(obj)
        if obj is not None and self.has_change_permission(request, obj):
            options = {**options, "fields": [*options["fields"], "seen"]}
        return [(name, options), *rest]

    def sections(self, obj: Any) -> list[tuple[str | None, dict[str, Any]]]:
        """The fieldsets; the first one holds what can be changed."""
        raise NotImplementedError


def _count_of(model: type[Model], field: str) -> Coalesce:
    """The number of rows of `model` whose `field` is the row at hand."""
    found = model._default_manager.filter(**{field: OuterRef("pk")}).order_by().values(field).annotate(n=Count("*"))
    return Coalesce(Subquery(found.values("n")), 0)


def _listed(model: str, text: str, **filters: Any) -> SafeString:
    """A link to a list, filtered."""
    url = reverse(f"admin:libraries_{model}_changelist", query=filters)
    return format_html('<a href="{}">{}</a>', url, text)


@admin.register(Library)
class LibraryAdmin(_Page):
    """Libraries with their counts; `search` adds the state of their index."""

    form = LibraryForm
    state_fields: ClassVar[tuple[str, ...]] = (
        "document_count",
        "chunk_count",
        "vectors_by",
        "index",
        "revision",
        "created_at",
        "updated_at",
    )
    library_id = "public_id"
    list_display = ["public_id", "name", "dimension", "metric", "index", "document_count", "chunk_count", "revision"]
    sortable_by = ("public_id", "name", "dimension", "metric", "document_count", "chunk_count")
    search_fields = ("public_id", "name", "description")
    search_help_text = "Part of an id, a name or a description."

    def get_queryset(self, request: HttpRequest) -> QuerySet[Library]:
        newest = Change.objects.filter(library_key=OuterRef("pk")).order_by("-seq")
        libraries: QuerySet[Library] = (
            super()
            .get_queryset(request)
            .annotate(
                document_total=_count_of(Document, "library"),
                chunk_total=_count_of(Chunk, "library"),
                newest_change=Coalesce(Subquery(newest.values("seq")[:1]), 0),
            )
        )
        return libraries

    def sections(self, obj: Library | None) -> list[tuple[str | None, dict[str, Any]]]:
        fields = ["public_id", "name", "description", "dimension", "metric", "index_type", "metadata"]
        return [(None, {"fields": fields}), *([("State", {"fields": self.state_fields})] if obj else [])]

    def get_readonly_fields(self, request: HttpRequest, obj: Library | None = None) -> list[str]:
        if obj is None:
            return []
        fixed = ["public_id", "metric", *([] if obj.dimension is None else ["dimension"])]
        return [*fixed, *self.state_fields]

    def belonging(self, chosen: QuerySet[Library]) -> Sequence[QuerySet[Any]]:
        keys = chosen.values("pk")
        return [Document.objects.filter(library__in=keys), Chunk.objects.filter(library__in=keys)]

    @admin.display(description="documents", ordering="document_total")
    def document_count(self, library: Any) -> SafeString:
        return _listed("document", f"{library.document_total:,}", library=library.public_id)

    @admin.display(description="chunks", ordering="chunk_total")
    def chunk_count(self, library: Any) -> SafeString:
        return _listed("chunk", f"{library.chunk_total:,}", library=library.public_id)

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
class DocumentAdmin(_Page):
    """Documents with the first of their chunks. A document comes with chunks, so none is added here."""

    form = DocumentForm
    list_class = _DocumentList
    list_display = ("public_id", "library", "excerpt", "chunk_count", "updated_at")
    list_select_related = ("library",)
    show_full_result_count = False
    list_filter = (LibraryFilter,)
    search_fields = ("^public_id", "title", "source")
    search_help_text = "The beginning of an id, or words of a title or source."
    readonly_fields = ("public_id", "library", "created_at", "updated_at", "chunk_count", "first_chunks")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Document]:
        documents: QuerySet[Document] = super().get_queryset(request).annotate(chunk_total=_count_of(Chunk, "document"))
        return documents

    def sections(self, obj: Document | None) -> list[tuple[str | None, dict[str, Any]]]:
        fields = ["library", "public_id", "title", "source", "metadata", "created_at", "updated_at"]
        return [(None, {"fields": fields}), ("Chunks", {"fields": ["chunk_count", "first_chunks"]})]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def belonging(self, chosen: QuerySet[Document]) -> Sequence[QuerySet[Any]]:
        return [Chunk.objects.filter(document__in=chosen.values("pk"))]

    @admin.display(description="title")
    def excerpt(self, document: Any) -> str:
        return _shortened(document.beginning)

    @admin.display(description="number of chunks")
    def chunk_count(self, document: Any) -> SafeString:
        return _listed("chunk", f"{document.chunk_total:,}", document=document.pk)

    @admin.display(description="first chunks")
    def first_chunks(self, document: Any) -> SafeString:
        chunks = Chunk.objects.filter(document=document.pk).order_by("position", "id")
        context = {
            "chunks": _beginnings(chunks, "text")[:_FIRST_CHUNKS],
            "more": max(document.chunk_total - _FIRST_CHUNKS, 0),
            "all": reverse("admin:libraries_chunk_changelist", query={"document": document.pk}),
        }
        return render_to_string("admin/libraries/first_chunks.html", context)


@admin.register(Chunk)
class ChunkAdmin(_Page):
    """Chunks with a summary of their embedding. A chunk needs a vector to be found, so none is added here."""

    form = ChunkForm
    list_class = _ChunkList
    list_display = ("public_id", "library", "document", "excerpt")
    list_select_related = ("library", "document")
    show_full_result_count = False
    list_filter = (LibraryFilter, DocumentFilter)
    search_fields = ("^public_id", "text")
    search_help_text = "The beginning of an id, or words of a text. In a large database, id:… looks at ids only."
    readonly_fields = ("public_id", "library", "document", "position", "created_at", "updated_at", "embedding")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Chunk]:
        return super().get_queryset(request).select_related("library", "document")

    def get_ordering(self, request: HttpRequest) -> list[str | Combinable]:
        return ["position", "id"] if DocumentFilter.parameter_name in request.GET else ["id"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Chunk], search_term: str
    ) -> tuple[QuerySet[Chunk], bool]:
        if search_term.startswith("id:"):
            found = Chunk.objects.filter(public_id__startswith=search_term.removeprefix("id:").strip())
            return queryset.filter(pk__in=found.order_by().values("pk")), False
        return super().get_search_results(request, queryset, search_term)

    def sections(self, obj: Chunk | None) -> list[tuple[str | None, dict[str, Any]]]:
        fields = ["library", "document", "position", "public_id", "text", "metadata"]
        return [
            (None, {"fields": fields}),
            ("Embedding", {"fields": ["embedding"]}),
            ("Times", {"fields": ["created_at", "updated_at"]}),
        ]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="text")
    def excerpt(self, chunk: Any) -> str:
        return _shortened(chunk.beginning)

    @admin.display(description="vector")
    def embedding(self, chunk: Chunk) -> SafeString:
        stored = Embedding.objects.filter(chunk=chunk, generation=chunk.library.generation).first()
        vector = None if stored is None else vector_array(stored.vector)
        return render_to_string("admin/libraries/embedding.html", {"summary": vector is not None and _summary(vector)})


def _beginnings(queryset: QuerySet[Any], field: str) -> QuerySet[Any]:
    """Rows with the beginning of a text in its place."""
    cut: QuerySet[Any] = queryset.annotate(beginning=Left(field, _EXCERPT + 1)).defer(field)
    return cut


def _shortened(text: str) -> str:
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…"


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
