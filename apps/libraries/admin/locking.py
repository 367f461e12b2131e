"""Writing in the admin as the services do: the library's other writers wait, and its caches are told on commit."""

import contextlib
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db import connection
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from apps.libraries.errors import NotFound
from apps.libraries.services import sql

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin


class LockingAdmin(_ModelAdmin):
    """A page whose writes lock the library first. `library_id` leads from a row to the id of its library."""

    library_id = "library__public_id"

    def lock(self, queryset: QuerySet[Any]) -> None:
        """Lock the libraries of rows, in the transaction that is to write them."""
        for public_id in list(queryset.order_by(self.library_id).values_list(self.library_id, flat=True).distinct()):
            with contextlib.suppress(NotFound):
                sql.lock_library(public_id)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The row; within a transaction, which Django opens for a form that is sent, as it is once it is locked."""
        found = super().get_object(request, object_id, from_field)
        if found is None or not connection.in_atomic_block:
            return found
        self.lock(self.model._default_manager.filter(pk=found.pk))
        return super().get_object(request, object_id, from_field)

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        """Write the columns that were changed, and none where none was, so that the revision stays."""
        if not change:
            super().save_model(request, obj, form, change)
        elif form.changed_data:
            obj.save(update_fields=[*form.changed_data, "updated_at"])
