"""Which rows of a list are shown: those of one library, those of one document."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.libraries.models import Document, Library

_LIBRARIES_OFFERED = 20


class LibraryFilter(admin.SimpleListFilter):
    """Offers the first libraries by id, and the one that is chosen."""

    title = "library"
    parameter_name = "library"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        libraries = Library.objects.order_by("public_id").values_list("public_id", "pk")
        first = list(libraries[: _LIBRARIES_OFFERED + 1])
        if len(first) > _LIBRARIES_OFFERED:
            self.title = f"library (the first {_LIBRARIES_OFFERED})"
        self._keys: dict[str, int | None] = dict(first[:_LIBRARIES_OFFERED])
        chosen = self.value()
        if chosen is not None and chosen not in self._keys:
            self._keys[chosen] = libraries.filter(public_id=chosen).values_list("pk", flat=True).first()
        return [(public_id, public_id) for public_id in self._keys]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self.value()
        return queryset if chosen is None else queryset.filter(library__in=[self._keys[chosen]])


class DocumentFilter(admin.SimpleListFilter):
    """Offers only the document that is chosen, on whose page the choice is made: there may be very many."""

    title = "document"
    parameter_name = "document"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = self.value()
        if chosen is None:
            return []
        name = Document.objects.filter(pk=self._key()).values_list("public_id", flat=True).first()
        return [(chosen, name or "(deleted)")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.value() is None else queryset.filter(document=self._key())

    def _key(self) -> int:
        text = self.value() or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0
