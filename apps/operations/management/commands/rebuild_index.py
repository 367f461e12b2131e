"""`manage.py rebuild_index`: build the index files of libraries anew, and wait until that is done."""

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm

from apps.engine import kernels
from apps.indexing import merge_policy as planning
from apps.indexing.indexer import Indexer
from apps.indexing.stats import library_stats
from apps.libraries.errors import LibraryError, NotFound
from apps.libraries.inputs import Reindex
from apps.libraries.models import Library
from apps.libraries.services.libraries import reindex_library
from apps.operations.locks import only_one_maintains
from apps.search.cache import views
from apps.search.loading import index_folder
from apps.search.snapshots import open_snapshot

_SECONDS_BETWEEN_LOOKS = 0.5


class Command(BaseCommand):
    help = (
        "Build the indexes of libraries anew from the database. Works beside a running server, which goes on answering."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("library", nargs="*", help="ids of libraries; all, if none is named")

    def handle(self, *args: Any, **options: Any) -> None:
        named = options["library"] or list(Library.objects.order_by("pk").values_list("public_id", flat=True))
        if not named:
            self.stdout.write("There are no libraries.")
        kernels.load()
        building = tqdm(named, desc="rebuilding", unit="library", disable=None)
        for step, libraries in ((_ask, named), (self._build, building)):
            for library_id in libraries:
                try:
                    step(library_id)
                except LibraryError as error:
                    if isinstance(error, NotFound) and not options["library"]:
                        continue  # deleted meanwhile
                    raise CommandError(error.detail) from error

    def _build(self, library_id: str) -> None:
        failure = _built(library_id)
        if failure:
            raise CommandError(f"The index of library {library_id} could not be built: {failure}")
        index = library_stats(library_id=library_id)["index"]
        count = len(index["segments"])
        segments = f"{count} segment{'' if count == 1 else 's'}"
        self.stdout.write(f"{library_id}: {index['rows_indexed']:,} rows in {segments} ({index['kind']})")


def _ask(library_id: str) -> None:
    """Ask for a rebuild, whatever failed before."""
    library = reindex_library(library_id=library_id, reindex=Reindex())
    index_folder(library.uid).note_failure(None)


def _built(library_id: str) -> str | None:
    """Build, or wait until the maintenance process of a running server has; answers why that failed, if it did."""
    while True:
        with only_one_maintains() as alone:
            if alone:
                return Indexer().run_until_done(library_id)
        with open_snapshot() as snapshot:
            current = views.current(snapshot, library_id)
        failure = index_folder(current.state.uid).failure()
        # Rows that are written meanwhile are not what this waits for.
        if failure or planning.is_rebuilt(current):
            return failure
        time.sleep(_SECONDS_BETWEEN_LOOKS)
