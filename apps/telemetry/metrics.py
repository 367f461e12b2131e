"""The table of all metrics. docs/observability.md lists them too; a test compares the two.

Names of libraries are labels of the metrics `vectordb_library_*` alone, which are there if VECTORDB_METRICS_LIBRARIES
says for how many.
"""

from collections.abc import Collection

from django.conf import settings

from apps.telemetry.instruments import LONG_BOUNDS, Counter, Gauge, Histogram

# Requests, counted by the HTTP edge when the answer is sent.
REQUESTS = Counter("vectordb_requests_total", "Requests answered.", "route", "method", "status")
REQUEST_SECONDS = Histogram(
    "vectordb_request_seconds", "From a request's last byte to the hand-over of its answer, waiting included.", "route"
)
REQUEST_BYTES = Counter("vectordb_request_body_bytes_total", "Bytes of the bodies of requests.")
RESPONSE_BYTES = Counter("vectordb_response_body_bytes_total", "Bytes of the bodies of answers.")
STAGE_SECONDS = Histogram("vectordb_stage_seconds", "Stages of queries and of writes of chunks and documents.", "stage")
SCANNED = Counter("vectordb_scanned_total", "Rows that queries compared.")
SLOW_QUERIES = Counter("vectordb_slow_queries_total", "Queries that took VECTORDB_SLOW_QUERY_MS or longer.")
CONNECTIONS = Gauge("vectordb_connections", "Open connections of clients.", "process")
RUNNING = Gauge("vectordb_requests_running", "Requests that a thread is answering.", "process")
WAITING = Gauge("vectordb_requests_waiting", "Requests that wait for a thread.", "process")
LIBRARY_REQUESTS = Counter("vectordb_library_requests_total", "Requests answered with a status below 400.", "library")
LIBRARY_SECONDS = Counter("vectordb_library_request_seconds_total", "Seconds of these requests.", "library")
LIBRARY_SCANNED = Counter("vectordb_library_scanned_total", "Rows that their queries compared.", "library")
TOOL_CALLS = Counter(
    "vectordb_tool_calls_total", "Calls of agents' tools, by the code of their error, or ok.", "tool", "result"
)

# Views and locks.
VIEWS = Gauge("vectordb_views", "Views of libraries that are open.", "process")
VIEW_BYTES = Gauge(
    "vectordb_view_bytes", "Bytes that they hold, by what for, mapped or private.", "process", "component", "storage"
)
VIEW_LOOKUPS = Counter(
    "vectordb_view_lookups_total", "Requests for a view: it was current, caught up, or opened.", "result"
)
VIEWS_FREED = Counter("vectordb_views_freed_total", "Views that were freed because of VECTORDB_MEMORY_MB.")
LOCK_SECONDS = Histogram(
    "vectordb_lock_wait_seconds",
    "Waits for a lock: of a write for the database and the library, of a reader for whoever opens a view.",
    "lock",
)
CHECKPOINT_SECONDS = Histogram(
    "vectordb_checkpoint_seconds", "Last steps of checkpoints of SQLite's write-ahead log, for which writes wait."
)

# Embedding providers.
EMBEDDING_CALLS = Counter(
    "vectordb_embedding_calls_total", "Calls of a provider, by how they ended.", "provider", "result"
)
EMBEDDING_SECONDS = Histogram("vectordb_embedding_seconds", "Calls of a provider.", "provider")
EMBEDDED_TEXTS = Counter("vectordb_embedded_texts_total", "Texts that a provider has embedded.", "provider")
EMBEDDING_CACHE_LOOKUPS = Counter(
    "vectordb_embedding_cache_lookups_total", "Texts of queries that were looked up in the cache."
)
EMBEDDING_CACHE_MISSES = Counter("vectordb_embedding_cache_misses_total", "Those whose vector was not in it.")

# Maintenance. Rows and segments are as of its last look at each library, at most seconds ago.
MAINTAINING = Gauge("vectordb_maintenance_running", "1 while a process maintains the data folder.")
SEAL_SECONDS = Histogram("vectordb_seal_seconds", "Sealing the rows of a library.", bounds=LONG_BOUNDS)
MERGE_SECONDS = Histogram("vectordb_merge_seconds", "Merging segments into one.", "index_type", bounds=LONG_BOUNDS)
MAINTENANCE_FAILURES = Counter("vectordb_maintenance_failures_total", "Steps of maintenance that failed.", "step")
ROWS = Gauge("vectordb_rows", "Rows in segments, rows changed since (the tail), dead rows in segments.", "state")
SEGMENTS = Gauge("vectordb_segments", "Segments by the type of their index.", "index_type")
INDEX_BYTES = Gauge("vectordb_index_bytes", "Bytes of the views of all libraries that have index files.")
LIBRARY_ROWS = Gauge("vectordb_library_rows", "The same rows of one library.", "library", "state")

# The recall watch, of maintenance.
RECALL_SAMPLES = Counter(
    "vectordb_recall_samples_total", "Queries sampled for the recall watch, by their fate.", "result"
)
LOWEST_RECALL = Gauge("vectordb_recall_lowest", "The lowest recall of a library with at least 20 samples.")
LIBRARY_RECALL = Gauge("vectordb_library_recall_at_k", "The rolling recall of one library.", "library")

# Jobs.
JOBS_ENDED = Counter("vectordb_jobs_ended_total", "Jobs that have ended, by how.", "kind", "state")

# Processes.
STARTS = Counter("vectordb_process_starts_total", "Processes started since the server did.", "role")
RESIDENT_BYTES = Gauge("vectordb_process_resident_bytes", "Memory, with shared and mapped pages.", "process")
OPEN_FILES = Gauge("vectordb_process_open_files", "Open file descriptors.", "process")

# Looked up when the metrics are asked for.
INFO = Gauge(
    "vectordb_info",
    "1, with the versions of the server and of Python.",
    "version",
    "database",
    "python",
    is_shared=False,
)
DATABASE_UP = Gauge("vectordb_database_up", "Whether the database answers.", is_shared=False)
LIBRARIES = Gauge("vectordb_libraries", "Libraries.", is_shared=False)
JOBS_RUNNING = Gauge("vectordb_jobs_running", "Jobs that run, or wait for their turn.", "kind", is_shared=False)
LAST_BACKUP = Gauge(
    "vectordb_last_backup_timestamp_seconds", "When the last backup was made, as a Unix time.", is_shared=False
)
DATABASE_BYTES = Gauge("vectordb_database_bytes", "Size of the database.", is_shared=False)
WAL_BYTES = Gauge("vectordb_wal_bytes", "Size of SQLite's write-ahead log.", is_shared=False)
DISK_FREE_BYTES = Gauge("vectordb_disk_free_bytes", "Room on the disk of the data folder.", is_shared=False)
DISK_BYTES = Gauge("vectordb_disk_bytes", "Size of that disk.", is_shared=False)
DISK_FULL = Gauge("vectordb_disk_full", "1 while only deletes are written.", is_shared=False)
MEMORY_BUDGET = Gauge("vectordb_memory_budget_bytes", "VECTORDB_MEMORY_MB, of each process.", is_shared=False)

OTHER_LIBRARIES = "(other)"


def library_label(library_id: str, known: Collection[tuple[str, ...]]) -> str:
    """The label of a library where those that are `known` have one; `(other)` past VECTORDB_METRICS_LIBRARIES."""
    is_known = (library_id,) in known or len(known) < settings.METRICS_LIBRARIES
    return library_id if is_known else OTHER_LIBRARIES
