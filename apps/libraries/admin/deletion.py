"""Deleting in the admin without loading what is deleted: the database's triggers delete what belongs to a row.

Django's own pages load every row, and list each: of a library with 100,000 chunks that would be the end of them.
"""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin import helpers
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth import get_permission_codename
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html

from apps.libraries.admin.locking import LockingAdmin

_NAMED = 20
_LOGGED_ONE_BY_ONE = 100


class LeanDeletion(LockingAdmin):
    """A page whose deletions count instead of loading."""

    actions = ["delete_selected"]

    def belonging(self, chosen: QuerySet[Any]) -> Sequence[QuerySet[Any]]:
        """What the triggers delete along with the rows `chosen`."""
        return []

    def get_deleted_objects(
        self, objs: QuerySet[Any] | Sequence[Any], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """The first names, the number of rows of each kind, the kinds that the user may not delete, nothing."""
        if isinstance(objs, QuerySet):
            ordered = objs
        else:
            ordered = self.model._default_manager.filter(pk__in=[obj.pk for obj in objs])
        chosen = ordered.order_by()
        kinds = [chosen, *self.belonging(chosen)]
        counts = {kind.model: kind.count() for kind in kinds}
        may_not = {model for model, count in counts.items() if count and not _may_delete(request, model)}
        names = [
            format_html(
                '<a href="{}">{}</a>', reverse(f"admin:libraries_{self.opts.model_name}_change", args=[pk]), name
            )
            for pk, name in ordered.values_list("pk", "public_id")[:_NAMED]
        ]
        more = counts[self.model] - len(names)
        return (
            names + ([f"and {more:,} more"] if more > 0 else []),
            {_kind(model): count for model, count in counts.items()},
            {_kind(model) for model in may_not},
            [],
        )

    @admin.action(permissions=["delete"], description="Delete selected %(verbose_name_plural)s")
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Ask, then delete, unless there are no longer as many as was asked about."""
        if request.POST.get("post"):
            with transaction.atomic():
                _, counts, may_not, _ = self.get_deleted_objects(queryset, request)
                if may_not:
                    raise PermissionDenied
                count = str(counts[_kind(self.model)])
                if request.POST.get("count", count) == count:
                    self.delete_queryset(request, queryset)
                    return None
        return self._ask(request, queryset)

    def _ask(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        names, counts, may_not, _ = self.get_deleted_objects(queryset, request)
        context = {
            **self.admin_site.each_context(request),
            "title": "Delete multiple objects",
            "opts": self.opts,
            "media": self.media,
            "objects_name": self.opts.verbose_name_plural,
            "deletable_objects": names,
            "model_count": counts.items(),
            "perms_lacking": sorted(may_not),
            "count": counts[_kind(self.model)],
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "selected": request.POST.getlist(helpers.ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across") == "1",
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/libraries/delete_selected.html", context)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Delete, log and say so."""
        self.lock(queryset)
        count = queryset.count()
        if count <= _LOGGED_ONE_BY_ONE:
            self.log_deletions(request, queryset.select_related(None).only("public_id"))
        else:
            LogEntry.objects.create(
                user_id=str(request.user.pk),
                content_type=ContentType.objects.get_for_model(self.model),
                object_repr=f"{count:,} {self.opts.verbose_name_plural}",
                action_flag=DELETION,
            )
        queryset.delete()
        name = self.opts.verbose_name if count == 1 else self.opts.verbose_name_plural
        self.message_user(request, f"Deleted {count:,} {name}.")


def _may_delete(request: HttpRequest, model: type[Model]) -> bool:
    return request.user.has_perm(f"{model._meta.app_label}.{get_permission_codename('delete', model._meta)}")


def _kind(model: type[Model]) -> str:
    return str(model._meta.verbose_name_plural)
