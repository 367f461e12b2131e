"""Writes manifests: of rows that are sealed, and of what a job has made; then tells all processes.

What always holds: a manifest is the library as of its position in the change log, to all who are at its usable position
or later. Sealing takes the position of the snapshot that it read for both. A finished job keeps the newest manifest's
position: it puts its segment in the place of those that it was made from, with the rows dead that died meanwhile. These
are missing at once, and so are those that were dead to the job, so it is usable from the position of that look on. (The
changes since the manifest's own position are applied again by whoever opens it.) Only one thread of one process
publishes.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from django.db import connection

from apps.engine.storage.manifest import Manifest, SegmentRecord
from apps.engine.storage.segment import Segment
from apps.engine.storage.view import View
from apps.indexing import merge_policy as planning
from apps.indexing.merge import Job
from apps.search import loading
from apps.search.loading import LoadedView
from apps.search.snapshots import LibraryState, Position


def seal(current: LoadedView) -> None:
    """Write the rows that are in no file, and which others are dead, as of the view's position."""
    state, view, manifest = current.state, current.view, current.manifest
    assert view is not None
    folder = loading.index_folder(state.uid)
    segments = planning.sealed_segments(view)
    known = {} if manifest is None else {record.name: record for record in manifest.segments}
    records = [known[segment.name] for segment in segments]
    rebuild = state.rebuild if manifest is None else manifest.rebuild
    loose = view.flush()
    if loose is not None:
        segment, record = folder.save(loose)
        segments.append(segment)
        records.append(record)
    try:
        manifest = _published(state, state.position, rebuild, segments, records)
    except OSError:
        if loose is not None:
            folder.discard(segment.name)  # the next attempt saves it anew
        raise
    tell(state, manifest)


def replace_inputs(
    current: LoadedView, view: View, manifest: Manifest, job: Job, segment: Segment, record: SegmentRecord
) -> None:
    """Put the result of a job in the place of its inputs, as far as they live; drop it where a row lives in one that
    was dead there when the job began, as after the database was put back to an older copy."""
    made_of = {one.name: one.live_keys() for one in job.inputs}
    inputs = {one.name: one.live_keys() for one in view.segments if one.name in made_of}
    if not all(np.isin(keys, made_of[name]).all() for name, keys in inputs.items()):
        return
    alive = np.isin(segment.keys, np.concatenate([np.empty(0, np.int64), *inputs.values()]))
    segments = [one for one in planning.sealed_segments(view) if one.name not in made_of]
    known = {one.name: one for one in manifest.segments}
    records = [known[one.name] for one in segments]
    if alive.any():
        segments.append(segment if alive.all() else replace(segment, alive=alive))
        records.append(record)
    position = Position(manifest.seq, manifest.token)
    tell(current.state, _published(current.state, position, manifest.rebuild, segments, records))


def tell(state: LibraryState, manifest: Manifest) -> None:
    """Let all processes know of a manifest."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE vectordb_library SET manifest = %s WHERE uid = %s", [manifest.number, state.uid])


def _published(
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
