"""How full disk and memory may be. Past that nothing is written, but deletes are: they are the way out."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

from django.conf import settings

from apps.access.requests import Refused
from apps.control_groups import memory_limits

_SECONDS_TO_KEEP = 1.0
_MOST = 100


class _Reading:
    """What was measured last, by this process."""

    taken_at = float("-inf")
    disk = memory = 0.0
    lock = threading.Lock()


def check_room() -> None:
    """Raise Refused if disk or memory are fuller than the settings allow; measured at most once a second."""
    most_disk, most_memory = settings.MAX_DISK_PERCENT, settings.MAX_MEMORY_PERCENT
    if most_disk == most_memory == _MOST:
        return
    with _Reading.lock:
        if monotonic() > _Reading.taken_at + _SECONDS_TO_KEEP:
            _Reading.disk, _Reading.memory = disk_percent(settings.DATA_DIR), memory_percent()
            _Reading.taken_at = monotonic()
    if _Reading.disk > most_disk:
        raise Refused(
            "disk_full",
            f"The disk of the data folder is {_Reading.disk:.1f}% full (limit VECTORDB_MAX_DISK_PERCENT, {most_disk}): "
            "only deletes are written. Delete what is not needed, or make the disk larger.",
            {"Retry-After": "30"},
        )
    if _Reading.memory > most_memory:
        raise Refused(
            "exhausted",
            f"{_Reading.memory:.1f}% of the memory is in use (limit VECTORDB_MAX_MEMORY_PERCENT, {most_memory}): only "
            "deletes are written. Try again when less is in use.",
            {"Retry-After": "10"},
        )


def disk_percent(folder: Path) -> float:
    """How much of the disk that `folder` lies on is taken, of what its user could take."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return 0.0
    taken = disk.f_blocks - disk.f_bfree
    return 100 * taken / max(1, taken + disk.f_bavail)


def memory_percent() -> float:
    """How much of the machine's memory is taken, or of what a container or service may take if that is fuller. What can
    be dropped, such as mapped index files, does not count. 0 where the system does not tell."""
    return max((_machine_percent(), *_group_percents()))


def _machine_percent() -> float:
    with suppress(OSError, KeyError, ValueError, ZeroDivisionError):
        found = _numbers(Path("/proc/meminfo").read_text().replace(":", ""))
        return 100 * (1 - found["MemAvailable"] / found["MemTotal"])
    return 0.0


def _group_percents(root: Path = Path("/sys/fs/cgroup")) -> Iterator[float]:
    for group, limit in memory_limits(root):
        with suppress(OSError, KeyError, ValueError, ZeroDivisionError):
            kept = _numbers((group / "memory.stat").read_text())
            used = int((group / "memory.current").read_text()) - kept["active_file"] - kept["inactive_file"]
            yield 100 * used / limit


def _numbers(text: str) -> dict[str, int]:
    return {words[0]: int(words[1]) for line in text.splitlines() if len(words := line.split()) > 1}
