"""What a person types into the admin, under the same rules as what a program sends to the API (`inputs`)."""

import json
from typing import TYPE_CHECKING, Any, ClassVar

import pydantic
from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
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
    """Text that is not stripped. Browsers send every line end as CR LF, so line ends alone are no change, and new ones
    are stored as LF."""

    widget = AdminTextareaWidget

    def __init__(self, **options: Any) -> None:
        super().__init__(strip=False, required=False, **options)

    def to_python(self, value: Any) -> str:
        return (super().to_python(value) or "").replace("\r\n", "\n").replace("\r", "\n")

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.to_python(initial) != self.to_python(data)


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
        return value if isinstance(value, InvalidJSONInput) else json.dumps(value, indent=2, ensure_ascii=False)


class InputForm(_ModelForm):
    """A form whose fields obey `rules`, the API's model of the same values, which calls some by other names."""

    rules: ClassVar[type[Input]]
    names_in_rules: ClassVar[dict[str, str]] = {}

    # When the row was last written, as the person has seen it: a later write by a program is not overwritten unseen.
    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["seen"] = self.instance.updated_at.isoformat()

    def clean(self) -> dict[str, Any]:
        super().clean()
        cleaned: dict[str, Any] = self.cleaned_data
        if cleaned.get("seen") and cleaned["seen"] != self.initial.get("seen"):
            raise ValidationError("This has changed since you opened the page, so nothing was saved. Open it again.")
        names = {self.names_in_rules.get(name, name): name for name, value in cleaned.items() if value is not None}
        try:
            self.rules.model_validate(
                {name: cleaned[field] for name, field in names.items() if name in self.rules.model_fields}
            )
        except pydantic.ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                if item["type"] == "missing":
                    continue  # its field has refused it already
                context = item.get("ctx", {})
                place = "".join(f"/{part}" for part in context.get("path", ())) or "This"
                field = names[str(item["loc"][0])] if item["loc"] else None
                self.add_error(field, f"{place} {context.get('detail', item['msg'])}.")
        return cleaned


class LibraryForm(InputForm):
    rules = LibraryCreate
    names_in_rules = {"public_id": "id"}

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


class DocumentForm(InputForm):
    rules = DocumentUpdate

    title = VerbatimField(widget=AdminTextareaWidget(attrs={"rows": 2}))
    source = VerbatimField(widget=AdminTextareaWidget(attrs={"rows": 2}))
    metadata = MetadataField()


class ChunkForm(InputForm):
    rules = ChunkUpdate

    text = VerbatimField(help_text="The embedding stays as it is. To replace it, write the chunk by the API.")
    metadata = MetadataField()
