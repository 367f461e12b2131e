"""The admin's pages of keys and of the audit trail. A new key is shown once, when it is made."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from apps.access.authorization import KEY_SCOPES
from apps.access.keys import create_key, join_libraries, join_scopes, revoke_key, rotate_key, update_key
from apps.access.models import AuditEntry, Key


class KeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """What a person may say about a key."""

    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in KEY_SCOPES],
        widget=forms.CheckboxSelectMultiple,
        help_text="write includes read, admin includes both.",
    )
    libraries = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Ids of libraries, or beginnings of ids such as docs-*, with spaces between; empty for all.",
    )

    class Meta:
        model = Key
        fields = ("name", "scopes", "libraries", "expires_at", "reads_per_minute", "writes_per_minute")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["scopes"] = self.instance.scopes.split()

    def clean_scopes(self) -> str:
        """The scopes as a row has them."""
        return join_scopes(self.cleaned_data["scopes"])

    def clean_libraries(self) -> str:
        """The patterns as a row has them."""
        patterns = self.cleaned_data["libraries"].split()
        try:
            return join_libraries(patterns or None)
        except ValueError as error:
            raise forms.ValidationError(f"Each {error}.") from None


@admin.register(Key)
class KeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Keys. To delete one is to revoke it."""

    form = KeyForm
    list_display = ("name", "public_id", "scopes", "libraries", "expires_at", "last_used_at")
    search_fields = ("name", "public_id")
    readonly_fields = ("public_id", "created_at", "updated_at", "last_used_at", "previous_until")
    actions = ("rotate_now", "rotate_in_a_day")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return (*KeyForm.Meta.fields, *(self.readonly_fields if obj is not None else ()))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.readonly_fields if obj is not None else ()

    def save_model(self, request: HttpRequest, obj: Key, form: Any, change: bool) -> None:
        if change:
            update_key(key_id=obj.public_id, changes={name: getattr(obj, name) for name in form.changed_data})
            return
        made = create_key(
            name=obj.name,
            scopes=obj.scopes.split(),
            libraries=obj.libraries.split() or None,
            expires_at=obj.expires_at,
            reads_per_minute=obj.reads_per_minute,
            writes_per_minute=obj.writes_per_minute,
        )
        obj.pk, obj.public_id = made.row.pk, made.row.public_id
        _show(request, obj.name, made.key)

    def delete_model(self, request: HttpRequest, obj: Key) -> None:
        revoke_key(key_id=obj.public_id)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Key]) -> None:
        for row in queryset:
            revoke_key(key_id=row.public_id)

    @admin.action(description="Give the selected keys another secret; the present one ends now", permissions=["change"])
    def rotate_now(self, request: HttpRequest, queryset: QuerySet[Key]) -> None:
        """Rotate without overlap."""
        _rotate(request, queryset, 0)

    @admin.action(
        description="Give the selected keys another secret; the present one ends in a day", permissions=["change"]
    )
    def rotate_in_a_day(self, request: HttpRequest, queryset: QuerySet[Key]) -> None:
        """Rotate with an overlap of a day."""
        _rotate(request, queryset, 24 * 3600)


def _rotate(request: HttpRequest, rows: QuerySet[Key], overlap_seconds: int) -> None:
    for row in rows:
        made = rotate_key(key_id=row.public_id, overlap_seconds=overlap_seconds)
        if made is not None:
            _show(request, row.name, made.key)


def _show(request: HttpRequest, name: str, key: str) -> None:
    messages.warning(request, format_html("The key {}, which is shown this once: <code>{}</code>", name, key))


@admin.register(AuditEntry)
class AuditEntryAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """The audit trail, the newest change first. Nobody edits it."""

    list_display = ("at", "name", "key_id", "action", "library", "target", "count", "request_id")
    list_display_links = None
    list_per_page = 50
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("=library", "=name", "=key_id", "=action", "=request_id")
    search_help_text = "A library's id, a name, the id of a key or of a request, or an action, whole."
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
