"""What a person types into the admin, under the same rules as what a program sends to the API (`inputs`)."""

import json
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
from pydantic import ValidationError as BrokenRules
from pydantic_core import from_json

from apps.engine.indexes.registry import AUTO, INDEX_TYPES
from apps.libraries.fields import Input
from apps.libraries.ids import new_id
from apps.libraries.inputs import ChunkUpdate, DocumentUpdate, LibraryCreate

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[Any]
else:
    _ModelForm = forms.ModelForm


class VerbatimField(forms.CharField):
    """Text that comes back as it was: not stripped, and an untouched line end stays what it is.

    A browser sends every line end as CR LF, so those cannot be told apart; new ones are kept as LF.
    """

    widget = AdminTextareaWidget

    def __init__(self, **options: Any) -> None:
        super().__init__(strip=False, required=False, **options)

    def to_python(self, value: Any) -> str:
        return _with_line_feeds(super().to_python(value) or "")

    def has_changed(self, initial: Any, data: Any) -> bool:
        return _with_line_feeds(initial or "") != _with_line_feeds(data or "")


def _with_line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


class MetadataField(forms.JSONField):
    """A JSON object, shown indented and read as strictly as the API reads it."""

    def __init__(self, **options: Any) -> None:
        widget = AdminTextareaWidget(attrs={"rows": 14, "spellcheck": "false", "style": "font-family: monospace"})
        super().__init__(required=False, initial=dict, widget=widget, **options)

    def to_python(self, value: Any) -> Any:
        if value in self.empty_values:
            return {}
        try:
            parsed = value if isinstance(value, dict) else from_json(value, allow_inf_nan=False)
        except ValueError as error:
            raise ValidationError(f"This is not valid JSON: {error}.", code="invalid") from None
        if not isinstance(parsed, dict):
            raise ValidationError('This must be a JSON object, such as {"kind": "note"}.', code="invalid")
        return parsed

    def bound_data(self, data: Any, initial: Any) -> Any:
        return None if data is None else InvalidJSONInput(data)

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, InvalidJSONInput):
            return value
        return json.dumps(value, indent=2, ensure_ascii=False)


class SeenField(forms.CharField):
    """When the row was last written, as the person has seen it; sent along, never edited."""

    widget = forms.HiddenInput

    def has_changed(self, initial: Any, data: Any) -> bool:
        return False


class RuledForm(_ModelForm):
    """A form whose fields obey `rules`, the API's model of the same values, which may call them by `named`."""

    rules: ClassVar[type[Input]]
    named: ClassVar[dict[str, str]] = {}

    # A write by a program in the meantime is not overwritten unseen.
    seen = SeenField(required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["seen"] = self.instance.updated_at.isoformat()

    def clean(self) -> dict[str, Any]:
        super().clean()
        cleaned = self.cleaned_data
        if cleaned.get("seen") and cleaned["seen"] != self.initial.get("seen"):
            raise ValidationError("This has changed since you opened the page, so nothing was saved. Open it again.")
        for name, field in self.fields.items():
            if isinstance(field, VerbatimField) and name in cleaned:
                before = self.initial.get(name, "")
                cleaned[name] = cleaned[name] if field.has_changed(before, cleaned[name]) else before
        self._check(cleaned)
        return cleaned

    def _check(self, cleaned: dict[str, Any]) -> None:
        fields = {self.named.get(name, name): name for name in cleaned}
        values = {known: cleaned[name] for known, name in fields.items() if known in self.rules.model_fields}
        try:
            self.rules.model_validate({name: value for name, value in values.items() if value is not None})
        except BrokenRules as error:
            for item in error.errors(include_url=False, include_input=False):
                # What is missing has been refused by its field already.
                if item["type"] != "missing":
                    context = item.get("ctx", {})
                    place = "".join(f"/{part}" for part in context.get("path", ()))
                    detail = context.get("detail", item["msg"])
                    self.add_error(
                        fields.get(str(item["loc"][0])) if item["loc"] else None, f"{place or 'This'} {detail}."
                    )


class LibraryForm(RuledForm):
    rules = LibraryCreate
    named = {"public_id": "id"}

    public_id = forms.CharField(
        label="Id", required=False, help_text="Names the library in the API. Leave empty for a generated one."
    )
    description = VerbatimField(widget=AdminTextareaWidget(attrs={"rows": 4}))
    index_type = forms.ChoiceField(choices=[(name, name) for name in (AUTO, *INDEX_TYPES)], initial=AUTO)
    metadata = MetadataField()

    class Meta:
        help_texts: ClassVar[dict[str, str]] = {
            "dimension": "How many components each vector has. Where this is empty, the first vector decides.",
            "metric": "How vectors are compared. It cannot be changed later.",
        }

    def clean_public_id(self) -> str:
        return self.cleaned_data["public_id"] or new_id()


class DocumentForm(RuledForm):
    rules = DocumentUpdate

    title = VerbatimField(widget=AdminTextareaWidget(attrs={"rows": 2}))
    source = VerbatimField(widget=AdminTextareaWidget(attrs={"rows": 2}))
    metadata = MetadataField()


class ChunkForm(RuledForm):
    rules = ChunkUpdate

    text = VerbatimField(help_text="The embedding stays as it is; to make it anew, write the chunk by the API.")
    metadata = MetadataField()
