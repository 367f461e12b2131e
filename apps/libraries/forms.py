"""The admin's forms, which write by the services, so that a person's input obeys the rules of the API."""

import base64
import json
from typing import Any

import pydantic
from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
from pydantic_core import from_json

from apps.embeddings.errors import EmbeddingError
from apps.engine.indexes.registry import AUTO, INDEX_TYPES
from apps.libraries import selectors
from apps.libraries.errors import LibraryError, PreconditionFailed
from apps.libraries.inputs import ChunkUpdate, DocumentUpdate, LibraryCreate, LibraryUpdate
from apps.libraries.models import Embedding
from apps.libraries.services.chunks import update_chunk
from apps.libraries.services.documents import update_document
from apps.libraries.services.libraries import create_library, update_library


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

    widget = AdminTextareaWidget

    def to_python(self, value: Any) -> Any:
        try:
            parsed = value if isinstance(value, dict) else from_json(value or "{}", allow_inf_nan=False)
        except ValueError as error:
            raise ValidationError(f"This is not valid JSON: {error}.") from None
        if not isinstance(parsed, dict):
            raise ValidationError('This must be a JSON object, such as {"kind": "note"}.')
        return parsed

    def bound_data(self, data: Any, initial: Any) -> Any:
        return None if data is None else InvalidJSONInput(data)

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, InvalidJSONInput) else json.dumps(value, indent=2, ensure_ascii=False)


class ServiceForm(forms.ModelForm):  # type: ignore[type-arg]
    """A form whose changed fields a service writes."""

    # The ETag of what the person saw: what a program has written since is not overwritten.
    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["seen"] = self.etag()

    def etag(self) -> str:
        """The tag of the row as it is."""
        raise NotImplementedError

    def write(self, changes: dict[str, Any], if_match: str | None) -> None:
        """Write the changed fields; raise what the service raises."""

    def _post_clean(self) -> None:
        """Write, in place of Django's checks of the model: what the service refuses is shown beside what was typed."""
        if self.errors:
            return
        changes = {name: self.cleaned_data[name] for name in self.changed_data if name != "seen"}
        try:
            if changes:
                self.write(changes, self.cleaned_data["seen"] or None)
        except PreconditionFailed:
            self.add_error(None, "This has changed since you opened the page, so nothing was saved. Open it again.")
        except pydantic.ValidationError as error:
            for item in error.errors(include_url=False, include_input=False):
                context = item.get("ctx", {})
                self._refuse([*item["loc"], *context.get("path", ())], context.get("detail", item["msg"]))
        except LibraryError as error:
            for fault in error.faults:
                self._refuse(fault.pointer.split("/")[1:], fault.detail)
            if not error.faults:
                self.add_error(None, error.detail)
        except EmbeddingError as error:
            self.add_error(None, str(error))

    def _refuse(self, path: list[Any], detail: str) -> None:
        field = "public_id" if path[:1] == ["id"] else next(iter(path), None)
        field, rest = (field, path[1:]) if field in self.fields else (None, path)
        self.add_error(field, f"{''.join(f'/{part}' for part in rest) or 'This'} {detail}.")


class LibraryForm(ServiceForm):
    public_id = forms.CharField(
        label="Id", required=False, help_text="Names the library in the API. Leave empty for a generated one."
    )
    description = VerbatimField()
    index_type = forms.ChoiceField(choices=[(name, name) for name in (AUTO, *INDEX_TYPES)], initial=AUTO)
    metadata = MetadataField(required=False, initial=dict)

    def etag(self) -> str:
        return selectors.etag(selectors.library_data(self.instance))

    def write(self, changes: dict[str, Any], if_match: str | None) -> None:
        if self.instance.pk:
            update_library(library_id=self.instance.public_id, update=LibraryUpdate(**changes), if_match=if_match)
            return
        if "public_id" in changes:
            changes["id"] = changes.pop("public_id")
        self.instance = create_library(create=LibraryCreate(**changes))


class DocumentForm(ServiceForm):
    title = VerbatimField(widget=AdminTextareaWidget(attrs={"rows": 2}))
    source = VerbatimField(widget=AdminTextareaWidget(attrs={"rows": 2}))
    metadata = MetadataField(required=False, initial=dict)

    def etag(self) -> str:
        return selectors.document_etag(self.instance)

    def write(self, changes: dict[str, Any], if_match: str | None) -> None:
        ids = {"library_id": self.instance.library.public_id, "document_id": self.instance.public_id}
        update_document(**ids, update=DocumentUpdate(**changes), if_match=if_match)


class ChunkForm(ServiceForm):
    text = VerbatimField(help_text="A new text gets a new vector, if the chunk has one and the library has a model.")
    metadata = MetadataField(required=False, initial=dict)
    # Whether the vector is still that of the text before.
    keeps_vector = False

    def etag(self) -> str:
        return selectors.etag(selectors.chunk(**self._ids()))

    def write(self, changes: dict[str, Any], if_match: str | None) -> None:
        library = self.instance.library
        stored = Embedding.objects.filter(chunk=self.instance, generation=library.generation).first()
        if "text" in changes and library.embedding is None and stored is not None:
            changes["embedding"], self.keeps_vector = base64.b64encode(stored.vector).decode(), True
        update_chunk(**self._ids(), update=ChunkUpdate(**changes), if_match=if_match)

    def _ids(self) -> dict[str, Any]:
        return {"library_id": self.instance.library.public_id, "chunk_id": self.instance.public_id}
