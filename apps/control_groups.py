"""The control groups (version 2) of this process: what a container or a service may take."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def memory_limits(root: Path = Path("/sys/fs/cgroup")) -> Iterator[tuple[Path, int]]:
    """The folder and the bytes of each group that this process is in and whose memory is limited."""
    with suppress(OSError):
        group = next((line[3:] for line in Path("/proc/self/cgroup").read_text().split() if line[:3] == "0::"), "/")
        folder = root / group.lstrip("/")
        for above in (folder, *folder.parents):
            if above.is_relative_to(root):
                with suppress(OSError, ValueError):
                    yield above, int((above / "memory.max").read_text())
