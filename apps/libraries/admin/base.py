"""What the pages share: writes lock the library as the services do, and no deletion loads what goes along with a row.

The database's triggers delete what belongs to a row. Django would load and list all of it first.
"""

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.contrib import admin
from django.contrib.admin import actions
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.admin.options import get_content_type_for_model
from django.contrib.admin.views.main import ChangeList
from django.db import connection, transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html

from apps.libraries.errors import NotFound
from apps.libraries.services.sql import lock_library

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin

_NAMED = 20
_LOGGED_ONE_BY_ONE = 100


class RowList(ChangeList):
    """A list that is sorted by what is offered only: Django takes any column from the address."""

    def get_ordering_field(self, field_name: Any) -> Any:
        return super().get_ordering_field(field_name) if field_name in (self.sortable_by or ()) else None


class RowAdmin(_ModelAdmin):
    """The pages of a model."""

    actions = ["delete_selected"]
    delete_selected_confirmation_template = "admin/libraries/delete_selected.html"
    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    sortable_by: ClassVar[tuple[str, ...]] = ()
    is_added = True  # by hand
    # The path from a row to the id of its library.
    library_id = "library__public_id"
    fields_shown: ClassVar[tuple[str, ...]]
    more_fieldsets: ClassVar[dict[str, tuple[str, ...]]]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.is_added and super().has_add_permission(request)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return RowList

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return [(None, {"fields": self.fields_shown})]
        hidden = ("seen",) if self.has_change_permission(request, obj) else ()
        more = [(name, {"fields": fields}) for name, fields in self.more_fieldsets.items()]
        return [(None, {"fields": self.fields_shown + hidden}), *more]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return the row; where Django is to write it, once it is locked."""
        found = super().get_object(request, object_id, from_field)
        if found is None or not connection.in_atomic_block:
            return found
        self._lock(self.model._default_manager.filter(pk=found.pk))
        return super().get_object(request, object_id, from_field)

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        """Write the columns that were changed, and none where none was, so that the revision stays."""
        changed = [name for name in form.changed_data if name != "seen"]
        if not change:
            super().save_model(request, obj, form, change)
        elif changed:
            obj.save(update_fields=[*changed, "updated_at"])

    def belonging(self, rows: QuerySet[Any]) -> list[QuerySet[Any]]:
        """Return what the triggers delete along with rows."""
        return []

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Return links to the first rows, the number of each kind, and the kinds that the user may not delete."""
        rows = self.model._default_manager.filter(pk__in=[obj.pk for obj in objs]) if isinstance(objs, list) else objs
        counts, lacking = {}, set()
        for kind in (rows.order_by(), *self.belonging(rows.order_by())):
            name = str(kind.model._meta.verbose_name_plural)
            counts[name] = kind.count()
            if counts[name] and not request.user.has_perm(f"libraries.delete_{kind.model._meta.model_name}"):
                lacking.add(name)
        page = f"admin:libraries_{self.opts.model_name}_change"
        first = rows.values_list("pk", "public_id")[:_NAMED]
        names = [format_html('<a href="{}">{}</a>', reverse(page, args=[pk]), name) for pk, name in first]
        more = counts[str(self.opts.verbose_name_plural)] - len(names)
        return names + [f"and {more:,} more"] * (more > 0), counts, lacking, []

    @admin.action(permissions=["delete"], description="Delete selected %(verbose_name_plural)s")
    def delete_selected(self, request: Any, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Ask, then delete, unless there are no longer as many as was asked about."""
        with transaction.atomic():
            count = str(queryset.count())
            if request.POST.get("count", count) != count:
                request.POST = request.POST.copy()
                request.POST.pop("post", None)
            answer: Any = actions.delete_selected(self, request, queryset.select_related(None).only("public_id"))
        if answer is not None:
            selected = request.POST.getlist("_selected_action")
            answer.context_data |= {
                "count": count,
                "selected": selected,
                "across": request.POST.get("select_across") == "1",
            }
        return cast("HttpResponse | None", answer)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._lock(queryset)
        super().delete_queryset(request, queryset)

    def log_deletions(self, request: Any, queryset: QuerySet[Any]) -> Any:
        """Log many deletions as one."""
        if len(queryset) <= _LOGGED_ONE_BY_ONE:
            return super().log_deletions(request, queryset)
        return LogEntry.objects.create(
            user=request.user,
            content_type=get_content_type_for_model(self.model),
            object_repr=f"{len(queryset):,} {self.opts.verbose_name_plural}",
            action_flag=DELETION,
        )

    def _lock(self, rows: QuerySet[Any]) -> None:
        """Lock the libraries of rows, in the transaction that is to write them."""
        for public_id in list(rows.order_by(self.library_id).values_list(self.library_id, flat=True).distinct()):
            with contextlib.suppress(NotFound):
                lock_library(public_id)
