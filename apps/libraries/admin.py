"""The admin's pages of documents and chunks. Every change goes by a service, as that of a program does."""

import contextlib
from typing import Any, ClassVar
from urllib.parse import quote

from django.conf import settings
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import truncatechars
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.libraries.chunk_fields import vector_array
from apps.libraries.errors import NotFound
from apps.libraries.expiry import live_chunks, live_documents
from apps.libraries.forms import ChunkForm, DocumentForm
from apps.libraries.models import Chunk, Document, Embedding
from apps.libraries.services.chunks import delete_chunk
from apps.libraries.services.documents import delete_document

admin.site.site_header = admin.site.site_title = "vectordb"
admin.site.site_url = f"{settings.BASE_PATH}/api/v1/"

_EXCERPT = 120
_FIRST_VALUES = 8


class RowAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """The pages of a model. No page reads, counts or offers all rows of a large table but to show their number."""

    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    # What offers the rows of all pages to an action.
    actions_selection_counter = False
    sortable_by: ClassVar[tuple[str, ...]] = ()
    editable: ClassVar[tuple[str, ...]]
    shown: ClassVar[tuple[str, ...]]
    # What the triggers delete along with a row, and by which field; Django does not know of it.
    deleted_along: ClassVar[tuple[tuple[type[Model], str], ...]] = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return self.editable
        return (*self.editable, *self.shown, *(["seen"] if self.has_change_permission(request, obj) else []))

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        """Without Django's transaction: the service has its own, and embeds texts before that."""
        django: Any = self
        return django._changeform_view(request, object_id, form_url, extra_context)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Nothing: the form has written the row."""

    def delete(self, row: Any) -> None:
        """Delete a row by its service; raise NotFound."""

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        with contextlib.suppress(NotFound):  # deleted meanwhile
            self.delete(obj)

    @transaction.atomic
    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for row in queryset:
            self.delete_model(request, row)

    def response_action(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """For the selected rows only, whatever the request says: never for those of all pages."""
        request.POST = request.POST.copy()
        request.POST["select_across"] = "0"
        return super().response_action(request, *args, **kwargs)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        names, counts, lacking, protected = super().get_deleted_objects(objs, request)
        for model, field in self.deleted_along:
            name = str(model._meta.verbose_name_plural)
            counts[name] = model._default_manager.filter(**{f"{field}__in": [row.pk for row in objs]}).count()
            if counts[name] and not request.user.has_perm(f"libraries.delete_{model._meta.model_name}"):
                lacking.add(name)
        return names, counts, lacking, protected


def link_to_list(model: type[Model], text: str, **filters: int) -> SafeString:
    """A link to the list of the rows that match."""
    url = reverse(f"admin:libraries_{model._meta.model_name}_changelist", query=filters)
    return format_html('<a href="{}">{}</a>', url, text)


@admin.register(Document)
class DocumentAdmin(RowAdmin):
    """Documents. Each comes with its chunks, so none is added here."""

    form = DocumentForm
    list_display = ("public_id", "library", "excerpt", "updated_at")
    list_select_related = ("library",)
    search_fields = ("^public_id", "title", "source")
    search_help_text = "The beginning of an id, or words of a title or source."
    editable = ("title", "source", "metadata", "expires_at")
    shown = readonly_fields = ("library", "public_id", "created_at", "updated_at", "chunk_count")
    deleted_along = ((Chunk, "document"),)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Document]:
        return live_documents(super().get_queryset(request))

    def delete(self, row: Document) -> None:
        delete_document(library_id=row.library.public_id, document_id=row.public_id)

    @admin.display(description="title")
    def excerpt(self, document: Document) -> str:
        return truncatechars(document.title, _EXCERPT)

    @admin.display(description="chunks")
    def chunk_count(self, document: Document) -> SafeString:
        count = live_chunks(Chunk.objects.filter(document=document)).count()
        return link_to_list(Chunk, f"{count:,}", document=document.pk)


@admin.register(Chunk)
class ChunkAdmin(RowAdmin):
    """Chunks with a summary of their vector, which a person cannot type, so none is added here."""

    form = ChunkForm
    list_display = ("public_id", "library", "document", "excerpt")
    list_select_related = ("library", "document")
    search_fields = ("^public_id", "text")
    search_help_text = "The beginning of an id, or words of a text."
    editable = ("text", "metadata", "expires_at")
    shown = readonly_fields = (
        "library",
        "document",
        "position",
        "public_id",
        "created_at",
        "updated_at",
        "embed_text",
        "vector",
    )

    def get_ordering(self, request: HttpRequest) -> Any:
        return ["position", "id"] if "document" in request.GET else ["id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Chunk]:
        return live_chunks(super().get_queryset(request))

    def delete(self, row: Chunk) -> None:
        delete_chunk(library_id=row.library.public_id, chunk_id=row.public_id)

    def save_model(self, request: HttpRequest, obj: Chunk, form: Any, change: bool) -> None:
        if form.keeps_vector:
            library, chunk = obj.library.public_id, obj.public_id
            messages.warning(
                request,
                f"The library {library} has no embedding model, so {chunk} keeps the vector of its old text. Send that "
                f"of the new one as `embedding` by PATCH /api/v1/libraries/{library}/chunks/{quote(chunk, safe='')}",
            )

    @admin.display(description="text")
    def excerpt(self, chunk: Chunk) -> str:
        return truncatechars(chunk.text, _EXCERPT)

    def vector(self, chunk: Chunk) -> str:
        stored = Embedding.objects.filter(chunk=chunk, generation=chunk.library.generation).first()
        if stored is None:
            return "None: words and filters find this chunk, vectors do not."
        values = vector_array(stored.vector)
        first = ", ".join(f"{value:.6g}" for value in values[:_FIRST_VALUES])
        return f"{len(values)} components: {first}{', ...' if len(values) > _FIRST_VALUES else ''}"
