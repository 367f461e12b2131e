"""The admin's pages of libraries, with what their index is like: a list from the newest manifests, which opens nothing;
a library's page as `stats` tells it, which brings this process's view up to date."""

from typing import Any

from django.contrib import admin
from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from apps.engine.storage.manifest import Identity, Manifest
from apps.indexing.stats import library_stats
from apps.libraries.admin.pages import LibraryAdmin
from apps.libraries.errors import NotFound
from apps.libraries.models import Library
from apps.search.loading import index_folder

_MOST_SEGMENTS = 50

admin.site.unregister(Library)


@admin.register(Library)
class IndexedLibraryAdmin(LibraryAdmin):
    """Libraries with the state of their index."""

    list_display = [*LibraryAdmin.list_display, "index_files"]
    more_fieldsets = {"State": (*LibraryAdmin.state, "index_state")}

    @admin.display(description="index files")
    def index_files(self, library: Any) -> str:
        if index_folder(library.uid).failure():
            return "failed"
        manifest = _newest(library)
        if manifest is None:
            return "-"
        count = len(manifest.segments)
        size = sum(file.bytes for record in manifest.segments for file in record.files.values())
        return f"{count} segment{'' if count == 1 else 's'}, {filesizeformat(size)}"

    @admin.display(description="state of the index")
    def index_state(self, library: Any) -> SafeString:
        try:
            stats = library_stats(library_id=library.public_id)
        except NotFound:  # deleted just now
            return render_to_string("admin/indexing/index.html", {})
        index = stats["index"]
        context = {
            "index": index,
            "params": library.index_params,
            "indexed": f"{index['rows_indexed']:,}",
            "pending": f"{index['rows_pending']:,}",
            "tail": f"{index['rows_tail']:,}",
            "dead": f"{index['rows_dead']:,}",
            "lines": [
                {
                    "kind": segment["kind"],
                    "rows": f"{segment['rows']:,}",
                    "dead": f"{segment['rows_dead']:,}",
                    "bytes": segment["bytes"],
                }
                for segment in index["segments"][:_MOST_SEGMENTS]
            ],
        }
        return render_to_string("admin/indexing/index.html", context)


def _newest(library: Library) -> Manifest | None:
    """The newest manifest that can be read."""
    if library.dimension is None:
        return None
    identity = Identity(library.uid, library.dimension, library.metric, library.generation)
    return index_folder(library.uid).newest(identity)
