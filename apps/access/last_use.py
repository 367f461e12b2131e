"""When keys were used last. A thread of its own writes that now and then: no request waits for it, or for a writer."""

import logging
import threading
from contextlib import suppress

from django.db import DatabaseError, connections, transaction
from django.utils import timezone

from apps.access.models import Key

SECONDS_BETWEEN_WRITES = 60.0

logger = logging.getLogger(__name__)
_used: dict[str, None] = {}
_starting = threading.Lock()
_thread: threading.Thread | None = None


def note(key_id: str) -> None:
    """Note that a key is used now."""
    if key_id not in _used:
        _used[key_id] = None
        _start()


def _start() -> None:
    """Start the thread, unless this process has it; a process that was forked has none."""
    global _thread
    with _starting:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_write_for_ever, name="last use of keys", daemon=True)
            _thread.start()


def _write_for_ever() -> None:
    pause = threading.Event()
    while not pause.wait(SECONDS_BETWEEN_WRITES):
        some = list(_used)
        if not some:
            continue
        try:
            with suppress(DatabaseError), transaction.atomic():
                Key.objects.filter(public_id__in=some).update(last_used_at=timezone.now())
        finally:
            for key_id in some:
                _used.pop(key_id, None)
            # It would be idle for a minute, and hold what it has read.
            connections.close_all()
