"""`manage.py rebuild_index`: rebuild the index files of libraries, and wait until that is done."""

import time
from typing import Any

from django.core.management.base import CommandError

from apps.engine import kernels
from apps.indexing.indexer import Indexer
from apps.indexing.merge_policy import is_rebuilt, status_of
from apps.indexing.policy import DEFAULT_POLICY
from apps.indexing.stats import library_stats
from apps.libraries.inputs import Reindex
from apps.libraries.services.libraries import reindex_library
from apps.operations.management.base import LibrariesCommand, one_sentence_errors
from apps.operations.process import maintenance_lock
from apps.search.cache import views
from apps.search.loading import index_folder
from apps.search.snapshots import open_snapshot

_SECONDS_BETWEEN_LOOKS = 0.5


class Command(LibrariesCommand):
    help = "Rebuild the indexes of libraries from the database. Works beside a running server, which goes on answering."

    @one_sentence_errors()
    def handle(self, *args: Any, **options: Any) -> None:
        kernels.load()
        self.for_each(options["library"], _request_rebuild, self._build)

    def _build(self, library_id: str) -> None:
        failure = _wait_until_rebuilt(library_id)
        if failure:
            raise CommandError(f"The index of library {library_id} could not be built: {failure}")
        index = library_stats(library_id=library_id)["index"]
        count = len(index["segments"])
        segments = f"{count} segment{'' if count == 1 else 's'}"
        self.stdout.write(f"{library_id}: {index['rows_indexed']:,} rows in {segments} ({index['kind']})")


def _request_rebuild(library_id: str) -> None:
    """Ask for a rebuild, whatever failed before."""
    library = reindex_library(library_id=library_id, reindex=Reindex())
    index_folder(library.uid).note_failure(None)


def _wait_until_rebuilt(library_id: str) -> str | None:
    """Rebuild, or wait until the maintenance process of a running server has. Return why that failed, or None."""
    while True:
        with maintenance_lock() as is_locked:
            if is_locked:
                return Indexer().run_until_done(library_id)
        with open_snapshot() as snapshot:
            current = views.current(snapshot, library_id)
            folder = index_folder(current.state.uid)
            index = status_of(snapshot, current, folder, DEFAULT_POLICY)
        # Rows that are written meanwhile are not what this waits for.
        if (failure := folder.failure()) or is_rebuilt(index, DEFAULT_POLICY):
            return failure
        time.sleep(_SECONDS_BETWEEN_LOOKS)
