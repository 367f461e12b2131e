"""Every threshold of maintenance, in one object that tests construct with their own values."""

from dataclasses import dataclass

from apps.engine.indexes.registry import AUTO_THRESHOLDS, AutoThresholds


@dataclass(frozen=True)
class IndexingPolicy:
    """Numbers of rows and of characters, seconds, and bytes."""

    auto: AutoThresholds = AUTO_THRESHOLDS
    # Changed rows that are sealed at once; fewer once nobody has written to the library for `quiet_seconds`.
    seal_changes: int = 4096
    # Characters of text and metadata in fewer rows that are sealed at once, too: each worker would read them.
    seal_characters: int = 8 << 20
    quiet_seal_changes: int = 1000
    quiet_seconds: float = 5.0
    very_quiet_seconds: float = 60.0
    # Segments of one size tier that are merged; tiers differ by the same factor.
    tier: int = 4
    # A quiet library's small segments join the largest from this share of it on: each costs every query some time.
    quiet_tier: int = 32
    # A segment is copied without its dead rows when there are this many, and this share of its rows.
    dead_rows: int = 1024
    dead_fraction: float = 0.25
    # Merges of fewer rows take seconds, whatever the index type.
    slow_rows: int = 4096
    # The wait after a failure; doubled each time, up to the maximum.
    retry_seconds: float = 5.0
    max_retry_seconds: float = 60.0
    # Pauses between ticks, between calls of the database's own upkeep, and between sweeps, which look at all libraries.
    tick_seconds: float = 1.0
    upkeep_seconds: float = 5.0
    sweep_seconds: float = 60.0
    # A smaller view is closed when nothing is due: opening it again is cheap, and the views of thousands of libraries
    # would take all file descriptors.
    keep_view_bytes: int = 16 << 20
    # Entries of the change log that each library keeps, mostly two for a row that was written. A view further behind
    # opens the newest files, or loads all rows.
    keep_changes: int = 20_000
    prune_batch: int = 10_000
    # Expired chunks and documents, or answers kept for Idempotency-Keys, that one short transaction deletes, and such
    # transactions of one round of upkeep.
    expired_batch: int = 1_000
    expired_batches: int = 20
    # Entries of the audit trail that one round of upkeep deletes where they are old.
    audit_batch: int = 10_000


DEFAULT_POLICY = IndexingPolicy()
