"""The interface between what a request asks of a library and the engine that answers it.

`open_library` opens one state of a library. The rows that it shows are read through its `snapshot`, and whatever
searches, matches or counts goes through its `searcher`, so that another engine can stand there, such as one that
leaves the work to pgvector. The only one today is the embedded engine, which searches a view held by this process.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from apps.access.requests import current_principal
from apps.engine.metadata.facets import ValuePage
from apps.engine.metadata.filters import Filter
from apps.engine.metadata.ordering import OrderBy, OrderedRow
from apps.engine.vectors import Int64
from apps.libraries.profile import stage
from apps.search.cache import views
from apps.search.query.budget import RequestBudget
from apps.search.query.lookup import ChunkLookup
from apps.search.query.search import Facets, Fields, RankedHits, Searcher, SearchRequest
from apps.search.snapshots import LibraryState, Snapshot, open_snapshot


class SearchBackend(Protocol):
    """What an engine does with one state of a library. Chunks are named by their database keys."""

    def search(self, requests: Sequence[SearchRequest]) -> list[RankedHits]:
        """The hits of each request, in the order of `requests`."""

    def has(self, key: int) -> bool:
        """Whether there is a chunk of this key."""

    def match(self, filter: Filter) -> Int64:
        """The keys of the chunks that match, ascending."""

    def count(self, filter: Filter) -> int:
        """The number of chunks that match."""

    def lookup(self, keys: Sequence[int] | Int64) -> ChunkLookup:
        """What the chunks `keys` have and match."""

    def facets(self, field: str, filter: Filter, page: ValuePage) -> Facets:
        """A page of the values of a field among the chunks that match."""

    def fields(self, names: Sequence[str] | None, filter: Filter, limit: int) -> Fields:
        """What values the chunks that match have in the fields `names`, or in the `limit` fields of metadata that most
        of them have."""

    def ordered(
        self, order: Sequence[OrderBy], filter: Filter, after: OrderedRow | None, limit: int
    ) -> list[OrderedRow]:
        """The first `limit` chunks behind `after` that match, in `order`."""


class OpenLibrary(NamedTuple):
    """One state of a library: its settings and revision, its rows in the database, and the engine over them; and what
    the request may cost that opened it."""

    state: LibraryState
    snapshot: Snapshot
    searcher: SearchBackend
    budget: RequestBudget


@contextmanager
def open_library(library_id: str, budget: RequestBudget | None = None) -> Iterator[OpenLibrary]:
    """The library as it is now, until the block ends; without a `budget`, that of a new request. Raises NotFound."""
    budget = budget or RequestBudget()
    with stage("open"):
        snapshot = open_snapshot()
    with snapshot:
        with stage("open"):
            loaded = views.current(snapshot, library_id)
            # The one place from which on nothing knows of rows that have expired.
            view = loaded.view.at(snapshot.now)
        searcher = Searcher(view, budget, snapshot, loaded.state.unindexed)
        # And the one place from which on nothing knows of rows that a search token may not see.
        if (permitted := current_principal.get().filter) is not None:
            searcher = searcher.restrict(permitted)
        yield OpenLibrary(loaded.state, snapshot, searcher, budget)
