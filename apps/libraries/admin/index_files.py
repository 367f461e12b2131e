"""A library's index files, as its newest manifest describes them; nothing of them is opened."""

from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from apps.engine.errors import Damaged
from apps.engine.store import Identity, IndexFolder, Manifest
from apps.libraries.models import Library


@dataclass(frozen=True)
class _Line:
    kind: str
    params: str
    rows: int
    bytes: int
    has_dead: bool


def summary(library: Library, revision: int) -> SafeString:
    """A table of the segments, which revision they show, and why the last build failed, if it did."""
    folder = IndexFolder(settings.INDEX_DIR / library.uid)
    manifest = _newest(folder, library)
    context = {
        "failure": folder.failure(),
        "manifest": manifest,
        "built_at": manifest and datetime.fromtimestamp(manifest.created_at, UTC),
        "newer": manifest and revision > manifest.seq,
        "lines": manifest
        and [
            _Line(
                kind=record.kind,
                params=", ".join(f"{name} {value}" for name, value in record.params.items()),
                rows=record.rows,
                bytes=sum(file.bytes for file in record.files.values()),
                has_dead=record.alive is not None,
            )
            for record in manifest.segments
        ],
    }
    return render_to_string("admin/libraries/index_files.html", context)


def _newest(folder: IndexFolder, library: Library) -> Manifest | None:
    if library.dimension is None:
        return None
    identity = Identity(library.uid, library.dimension, library.metric, library.generation)
    for number in folder.numbers():
        try:
            return folder.read(number, identity)
        except Damaged:
            continue
    return None
