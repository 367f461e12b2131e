"""Writes manifests, of sealed rows and of merged segments, then announces them to all processes.

What always holds: a manifest is the library as of its position in the change log, for readers at its usable position or
later. A seal uses the position of the snapshot that it read for both. A merge keeps the newest manifest's position: it
replaces the inputs by its segment, and rows that died meanwhile are dead in it. Rows deleted before or during the merge
are absent, so the manifest is valid from its commit on. (Readers apply the changes since the manifest's own position
once more.) Only one thread of one process commits.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from django.db import connection

from apps.engine.storage.manifest import Manifest, SegmentRecord
from apps.engine.storage.segment import Segment
from apps.indexing.merge import Merge
from apps.indexing.merge_policy import sealed_segments
from apps.search import loading
from apps.search.loading import LoadedView
from apps.search.snapshots import LibraryState, Position


def seal(current: LoadedView) -> None:
    """Write the rows that are in no file, and which others are dead, as of the view's position."""
    state, view, manifest = current.state, current.view, current.manifest
    folder = loading.index_folder(state.uid)
    segments = sealed_segments(view)
    records = _records(manifest, segments)
    rebuild = state.rebuild if manifest is None else manifest.rebuild
    saved: list[str] = []
    try:
        for loose in view.flush():
            segment, record = folder.save(loose)
            saved.append(segment.name)
            segments.append(segment)
            records.append(record)
        manifest = _publish(state, state.position, rebuild, segments, records)
    except OSError:
        for name in saved:
            folder.discard(name)  # the next attempt saves it again
        raise
    announce(state, manifest)


def commit_merge(current: LoadedView, merge: Merge) -> None:
    """Replace the inputs of a merge by its result, as far as their rows live. Drop the result where a row lives in an
    input that was dead there when the merge began, as after the database was put back to an older copy."""
    view, manifest = current.view, current.manifest
    assert manifest is not None
    segment, record = merge.future.result()
    merged_keys = {one.name: one.live_keys() for one in merge.inputs}
    live_keys = {one.name: one.live_keys() for one in view.segments if one.name in merged_keys}
    if not all(np.isin(keys, merged_keys[name]).all() for name, keys in live_keys.items()):
        return
    alive = np.isin(segment.keys, np.concatenate([np.empty(0, np.int64), *live_keys.values()]))
    segments = [one for one in sealed_segments(view) if one.name not in merged_keys]
    records = _records(manifest, segments)
    if alive.any():
        segments.append(segment if alive.all() else replace(segment, alive=alive))
        records.append(record)
    position = Position(manifest.seq, manifest.token)
    announce(current.state, _publish(current.state, position, manifest.rebuild, segments, records))


def announce(state: LibraryState, manifest: Manifest) -> None:
    """Tell all processes the number of a library's newest manifest."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE vectordb_library SET manifest = %s WHERE uid = %s", [manifest.number, state.uid])


def _records(manifest: Manifest | None, segments: Sequence[Segment]) -> list[SegmentRecord]:
    """The manifest's records of some of its segments."""
    known = {} if manifest is None else {record.name: record for record in manifest.segments}
    return [known[segment.name] for segment in segments]


def _publish(
    state: LibraryState,
    position: Position,
    rebuild: int,
    segments: Sequence[Segment],
    records: Sequence[SegmentRecord],
) -> Manifest:
    """Write a manifest as of `position`, usable from that of `state` on. Raises OSError; then no manifest is there."""
    folder = loading.index_folder(state.uid)
    manifest = Manifest(
        number=max([state.manifest_number, *folder.numbers()]) + 1,
        identity=loading.identity_of(state),
        seq=position.seq,
        token=position.token,
        usable_seq=state.position.seq,
        usable_token=state.position.token,
        rebuild=rebuild,
        created_at=time.time(),
        segments=tuple(replace(record, alive=None) for record in records),
    )
    return folder.publish(manifest, {segment.name: segment for segment in segments})
