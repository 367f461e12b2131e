"""Whatever is written, sealed, merged, rebuilt, lost and opened again, in whatever order: exact search equals a
dictionary, the index files equal the database, and approximate search finds most of what is near."""

import contextlib
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from django.conf import settings
from django.db import connections
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from apps.engine.indexes.registry import AUTO, INDEX_TYPES, AutoThresholds
from apps.engine.metadata.filters import parse_filter
from apps.engine.metrics import Metric, exact_scores
from apps.engine.vectors import Float32
from apps.indexing.indexer import Indexer
from apps.indexing.policy import IndexingPolicy
from apps.indexing.stats import library_stats
from apps.indexing.upkeep import delete_expired_rows, prune_changes
from apps.indexing.verification import verify_library
from apps.libraries.errors import NotFound
from apps.libraries.inputs import ChunksWrite, LibraryCreate, LibraryUpdate, Reindex
from apps.libraries.models import Chunk, Document
from apps.libraries.services.chunks import delete_chunks, upsert_chunks
from apps.libraries.services.libraries import create_library, delete_library, reindex_library, update_library
from apps.search import loading
from apps.search.cache import ViewCache
from apps.search.loading import LoadedView
from apps.search.query.spec import EVERYTHING
from apps.search.snapshots import open_snapshot
from tests.engine.approximate import embeddings
from tests.engine.data import bounded, ranking, seeds
from tests.indexing.maintained import Clock, damage, settle
from tests.search import small_indexes
from tests.search.views import live_rows

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

LIBRARY = "machine"
DIMENSION = 12
ROWS_PER_WRITE = 1000
MANY = 2000
QUERIES, K = 8, 10
PAST, FUTURE = datetime(2001, 1, 1, tzinfo=UTC), datetime(2101, 1, 1, tzinfo=UTC)
# What maintenance and a process do with files and views, for few rows already.
POLICY = IndexingPolicy(
    auto=AutoThresholds(by_rows=((1000, "ivf"), (700, "quantized"))),
    seal_changes=200,
    quiet_seal_changes=20,
    slow_rows=200,
    dead_rows=32,
    keep_changes=50,
)
LOADING = loading.LoadingPolicy(page_rows=300, max_replay=400, compact_rows=32)
# The types that may miss a row.
APPROXIMATE = ("lsh", "quantized", "ivf", "hnsw")
# Each type finds nine of ten on such data; a few queries may find less.
RECALL = 0.8

kinds = st.sampled_from([AUTO, *INDEX_TYPES])
counts = st.sampled_from([1250, 250, 60, 7, 1, 0, MANY])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything is done for few rows already, and each example has files of its own."""
    monkeypatch.setattr(settings, "INDEX_DIR", tmp_path / "index")
    for kind, place in small_indexes.TYPES.items():
        monkeypatch.setitem(INDEX_TYPES, kind, place)


def new_cache() -> ViewCache:
    return ViewCache(policy=LOADING)


class Readers:
    """Threads that read until they are stopped, and compare what they read from with the rows of their snapshot.

    Each does so for a fifth of the time: most of the processor's is for what happens meanwhile."""

    def __init__(self, *caches: Callable[[], ViewCache]) -> None:
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._read, args=(cache,)) for cache in caches]
        for thread in self._threads:
            thread.start()

    def _read(self, cache: Callable[[], ViewCache]) -> None:
        seconds = 0.0
        try:
            while not self._stop.wait(4 * seconds):
                began = time.monotonic()
                with open_snapshot() as snapshot, contextlib.suppress(NotFound):  # it may be made again just now
                    current = cache().current(snapshot, LIBRARY)
                    rows = loading.load(snapshot, current.state, LOADING)
                    for one, other in zip(live_rows(current.view), live_rows(rows), strict=True):
                        assert np.array_equal(one, other)
                seconds = time.monotonic() - began
        except BaseException as failure:
            self._failures.append(failure)
        finally:
            connections.close_all()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self._failures, self._failures[0]


class LibraryMachine(RuleBasedStateMachine):
    """One library, the maintenance of its index files, and two processes that read it.

    `first_kind` is the index type that the library begins with: with the index and many rows where the type is
    approximate, so that it answers. `answered` counts the queries that an index of each type answered.
    """

    first_kind = AUTO
    answered: Counter[str] = Counter()

    @initialize(metric=st.sampled_from(Metric), seed=seeds, count=counts, bare_share=st.sampled_from([0.1, 0.0, 1.0]))
    def create(self, metric: Metric, seed: int, count: int, bare_share: float) -> None:
        self.bare_share = bare_share if self.first_kind == AUTO else min(bare_share, 0.1)
        self.metric, self.rng = metric, np.random.default_rng(seed)
        self.names = iter(range(10**9))
        self.clock = Clock()
        self.indexer, self.cache = Indexer(POLICY, clock=self.clock), new_cache()
        is_approximate = self.first_kind in APPROXIMATE
        self.make(self.first_kind, MANY if is_approximate else count)
        if is_approximate:
            self.maintain_until_all_is_done()
        self.readers = Readers(lambda: self.cache, new_cache)

    def make(self, kind: str, count: int) -> None:
        # By key; None for a chunk without a vector. Of all in the database, those that have expired are in no answer.
        self.rows: dict[int, Float32 | None] = {}
        self.expired: set[int] = set()
        create = LibraryCreate(id=LIBRARY, name="M", dimension=DIMENSION, metric=self.metric.value, index_type=kind)
        library = create_library(create=create)
        self.uid, self.unindexed = library.uid, list[str]()
        # What the metadata of each document says, by its key; and the documents of chunks that have one.
        documents = [Document.objects.create(library=library, public_id=name, metadata={"v": -1}) for name in "de"]
        self.versions = {document.pk: -1 for document in documents}
        self.document_of: dict[int, int] = {}
        self.write_new(count)

    def teardown(self) -> None:
        if hasattr(self, "readers"):
            try:
                self.readers.stop()
            finally:
                self.end_merges()
                delete_library(library_id=LIBRARY)
                shutil.rmtree(settings.INDEX_DIR, ignore_errors=True)

    def upsert(self, ids: list[str], vectors: Sequence[Float32 | None]) -> None:
        # What has expired is deleted for what has its id.
        self.forget(Chunk.objects.filter(pk__in=self.expired, public_id__in=ids).values_list("pk", flat=True))
        for start in range(0, len(ids), ROWS_PER_WRITE):
            some = slice(start, start + ROWS_PER_WRITE)
            chunks = [
                {"id": i, "embedding": None if v is None else v.tolist()}
                for i, v in zip(ids[some], vectors[some], strict=True)
            ]
            upsert_chunks(library_id=LIBRARY, write=ChunksWrite.model_validate({"chunks": chunks}))
        keys = dict(Chunk.objects.filter(library__public_id=LIBRARY).values_list("public_id", "pk"))
        self.rows |= {keys[i]: vector for i, vector in zip(ids, vectors, strict=True)}

    def vectors(self, count: int) -> Float32:
        """Rows as embeddings are, some of them equal, so that there are ties between segments and tail."""
        some = embeddings(count, DIMENSION, seed=int(self.rng.integers(2**32)))
        copies = self.rng.random(count) < 0.1
        some[copies] = some[:1]
        return some

    def some_vectors(self, count: int) -> list[Float32 | None]:
        """Such rows, and none for some chunks."""
        return [None if self.rng.random() < self.bare_share else vector for vector in self.vectors(count)]

    def some(self, count: int) -> list[tuple[int, str]]:
        """Keys and ids of rows that are there."""
        keys = self.rng.choice(list(self.rows), min(count, len(self.rows)), replace=False).tolist() if self.rows else []
        return list(Chunk.objects.filter(pk__in=keys).values_list("pk", "public_id"))

    def forget(self, keys: Iterable[int]) -> None:
        """Rows are deleted."""
        for key in list(keys):
            del self.rows[key]
            self.expired.discard(key)
            self.document_of.pop(key, None)

    # Writes.

    @rule(count=counts)
    def write_new(self, count: int) -> None:
        count = min(count, max(1, 2 * MANY - len(self.rows)))
        self.upsert([f"c{next(self.names)}" for _ in range(count)], self.some_vectors(count))

    @rule(count=st.sampled_from([1, 7, 60, 250]))
    def write_over(self, count: int) -> None:
        ids = [public_id for _, public_id in self.some(count)]
        self.upsert(ids, self.some_vectors(len(ids)))

    @rule(count=st.sampled_from([1, 60]))
    def write_the_same_again(self, count: int) -> None:
        chosen = self.some(count)
        self.upsert([public_id for _, public_id in chosen], [self.rows[key] for key, _ in chosen])

    @rule(count=st.sampled_from([1, 60, 500]))
    def change_metadata(self, count: int) -> None:
        Chunk.objects.filter(pk__in=[key for key, _ in self.some(count)]).update(metadata={"n": count})

    @rule(count=st.sampled_from([1, 7, 60, 500, 10_000]))
    def delete(self, count: int) -> None:
        chosen = self.some(count)
        delete_chunks(library_id=LIBRARY, ids=[public_id for _, public_id in chosen])
        self.forget({key for key, _ in chosen} - self.expired)

    @rule(count=st.sampled_from([1, 60, 500]), expires_at=st.sampled_from([PAST, FUTURE, None]))
    def set_expiry(self, count: int, expires_at: datetime | None) -> None:
        keys = {key for key, _ in self.some(count)}
        Chunk.objects.filter(pk__in=keys).update(expires_at=expires_at)
        self.expired = self.expired | keys if expires_at == PAST else self.expired - keys

    @rule(count=st.sampled_from([1, 60, 500]), which=st.integers(0, 1))
    def move_to_a_document(self, count: int, which: int) -> None:
        keys, document = [key for key, _ in self.some(count)], list(self.versions)[which]
        Chunk.objects.filter(pk__in=keys).update(document=document)
        self.document_of |= dict.fromkeys(keys, document)

    @rule(which=st.integers(0, 1))
    def change_a_document(self, which: int) -> None:
        document = list(self.versions)[which]
        self.versions[document] = next(self.names)
        Document.objects.filter(pk=document).update(metadata={"v": self.versions[document]})

    # What the owner of the library asks for.

    @rule(unindexed=st.sampled_from([[], ["n"], ["@document.v"]]))
    def leave_out_metadata(self, unindexed: list[str]) -> None:
        update_library(library_id=LIBRARY, update=LibraryUpdate(unindexed=unindexed))
        self.unindexed = unindexed

    @rule(kind=kinds)
    def wish_for_another_type(self, kind: str) -> None:
        update_library(library_id=LIBRARY, update=LibraryUpdate(index_type=kind))

    @rule()
    def ask_for_a_rebuild(self) -> None:
        reindex_library(library_id=LIBRARY, reindex=Reindex())

    @rule(kind=kinds, count=counts)
    def make_the_library_again(self, kind: str, count: int) -> None:
        delete_library(library_id=LIBRARY)
        self.make(kind, count)

    # Maintenance.

    @rule(quiet=st.booleans(), rounds=st.integers(1, 3))
    def maintain(self, quiet: bool, rounds: int) -> None:
        if quiet:
            self.indexer.tick()
            self.clock.forward(POLICY.quiet_seconds)
        for _ in range(rounds):
            self.indexer.tick()

    @rule()
    def maintain_until_all_is_done(self) -> None:
        self.indexer.tick()
        self.clock.forward(POLICY.quiet_seconds)
        settle(self.indexer)
        assert self.indexer.run_until_done(LIBRARY) is None
        assert library_stats(library_id=LIBRARY, policy=POLICY)["index"]["state"] == "ready"

    @rule()
    def restart_maintenance(self) -> None:
        self.end_merges()
        self.indexer = Indexer(POLICY, clock=self.clock)

    @rule()
    def delete_what_has_expired(self) -> None:
        assert delete_expired_rows(POLICY)
        self.forget(self.expired)

    @rule()
    def prune(self) -> None:
        prune_changes(POLICY)

    @rule()
    def sweep(self) -> None:
        self.end_merges()
        self.indexer.tick()
        self.indexer.sweep()

    # Misfortunes.

    @rule()
    def reopen(self) -> None:
        self.cache = new_cache()

    @rule()
    def lose_all_files(self) -> None:
        self.end_merges()
        shutil.rmtree(settings.INDEX_DIR, ignore_errors=True)

    @rule(at=st.floats(0, 1, exclude_max=True))
    def lose_or_damage_a_file(self, at: float) -> None:
        self.end_merges()
        files = sorted(path for path in settings.INDEX_DIR.rglob("*") if path.is_file())
        if files:
            path = files[int(at * len(files))]
            damage(path) if self.rng.random() < 0.5 else path.unlink()

    def end_merges(self) -> None:
        for merge in self.indexer.running.values():
            merge.future.exception()

    # What always holds.

    @invariant()
    def answers_equal_the_dictionary(self) -> None:
        if not hasattr(self, "readers"):
            return
        queries = embeddings(QUERIES, DIMENSION, seed=5)
        shown = {key: vector for key, vector in sorted(self.rows.items()) if key not in self.expired}
        embedded = {key: vector for key, vector in shown.items() if vector is not None}
        keys = np.array(list(embedded), np.int64)
        vectors = np.array(list(embedded.values()), np.float32).reshape(-1, DIMENSION)
        best = [keys[ranking(self.metric, vectors, query)].tolist() for query in queries]
        all_scores = [exact_scores(self.metric, vectors, query) for query in queries]
        for cache in (self.cache, new_cache()):
            whole = current_of(cache).view
            assert len(whole.at(-1)) == len(self.rows)
            view = whole.at(time.time_ns() // 1000)
            assert view.keys(view.matching(EVERYTHING)).tolist() == list(shown)
            assert view.bare == len(shown) - len(keys)
            for version in set(self.versions.values()):
                of = [key for key in shown if self.versions.get(self.document_of.get(key, 0)) == version]
                matching = view.keys(view.matching(parse_filter({"@document.v": version}))).tolist()
                assert matching == ([] if "@document.v" in self.unindexed else of)
            for k, some in ((1, queries), (K, queries), (len(keys) + 5, queries[:1])):
                for expected, hits in zip(best, view.search(some, k, exact=True), strict=False):
                    assert hits.exact
                    assert hits.keys.tolist() == expected[:k]
            found = 0
            for scores, hits in zip(all_scores, view.search(queries, K), strict=True):
                self.answered.update(hits.kinds)
                assert len(set(hits.keys.tolist())) == len(hits.keys) == min(K, len(keys))
                assert hits.scores.tobytes() == scores[np.searchsorted(keys, hits.keys)].tobytes()
                if len(keys):
                    found += int(np.count_nonzero(hits.scores >= np.sort(scores)[-len(hits.keys)]))
            assert found >= RECALL * QUERIES * min(K, len(keys))

    @invariant()
    def files_equal_the_database(self) -> None:
        if hasattr(self, "readers"):
            report = verify_library(library_id=LIBRARY, sample=5, k=K)
            assert (report.faults, report.rows) == (0, len(self.rows))
            assert loading.index_folder(self.uid).failure() is None


def current_of(cache: ViewCache) -> LoadedView:
    with open_snapshot() as snapshot:
        return cache.current(snapshot, LIBRARY)


# Which type of index there is makes no difference to a database.
@pytest.mark.parametrize("kind", [AUTO, *(pytest.param(kind, marks=pytest.mark.sqlite) for kind in APPROXIMATE)])
def test_a_library_equals_a_dictionary_whatever_happens_to_its_index_files(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LibraryMachine, "first_kind", kind)
    monkeypatch.setattr(LibraryMachine, "answered", answered := Counter[str]())
    examples = bounded(4 if kind == AUTO else 3)
    run_state_machine_as_test(LibraryMachine, settings=hypothesis_settings(examples, stateful_step_count=20))
    assert kind == AUTO or answered[kind], "or its recall was not looked at"
