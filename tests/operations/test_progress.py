"""What long commands tell without a terminal."""

from typing import Any

import pytest

from apps.operations.management import progress

pytestmark = pytest.mark.any_database


def test_without_a_terminal_a_line_now_and_then_tells_how_far_a_command_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.progress_bar(desc="importing into a", unit="B", unit_scale=True) as bar:
        bar.total = 40_000_000
        while now < 24:
            now += 1
            bar.update(1_000_000)
            bar.set_postfix_str("5 rows/s")
    assert capsys.readouterr().err.splitlines() == [
        "importing into a:  25% 10.0M/40.0M [00:10<00:30, 1.00MB/s, 5 rows/s]",
        "importing into a:  50% 20.0M/40.0M [00:20<00:20, 1.00MB/s, 5 rows/s]",
    ]


def test_a_command_goes_on_though_nobody_reads_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> None:
            raise BrokenPipeError

    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    closed: Any = Closed()
    monkeypatch.setattr("sys.stderr", closed)
    with progress.progress_bar(unit="row") as bar:
        now = 11.0
        bar.update(3)
    assert bar.n == 3
