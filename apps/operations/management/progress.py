"""How far a command is: a bar in a terminal, else a line now and then, as in the log of a job of CI."""

import contextlib
import sys
import time
from typing import Any, Final, Self

from tqdm import tqdm

_SECONDS_BETWEEN_LINES: Final = 10


def progress_bar(**options: Any) -> Any:
    """tqdm's bar with these options, or what stands for it where standard error is no terminal."""
    return tqdm(**options) if sys.stderr.isatty() else _Lines(**options)


class _Lines:
    """What commands use of tqdm's bar: `update` prints a line where the last one, or the begin, is ten seconds ago."""

    def __init__(
        self, *, desc: str = "", total: int | None = None, unit: str = "row", unit_scale: bool = False, initial: int = 0
    ) -> None:
        self.total, self.n, self.unit, self.unit_scale = total, initial, unit, unit_scale
        self._desc, self._initial, self._postfix = desc, initial, ""
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def set_postfix_str(self, text: str) -> None:
        self._postfix = text

    def update(self, count: int = 1) -> None:
        self.n += count
        now = time.monotonic()
        if now - self._told < _SECONDS_BETWEEN_LINES:
            return
        self._told = now
        # Of a total that nobody knows it tells nothing, though its types do not say so.
        total: Any = self.total
        line = tqdm.format_meter(
            self.n,
            total,
            now - self._began,
            ncols=0,
            prefix=self._desc,
            unit=self.unit,
            unit_scale=self.unit_scale,
            postfix=self._postfix,
            initial=self._initial,
        )
        # Nobody need read it.
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
