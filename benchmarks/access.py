"""What the check of a key costs on the hot path: `python -m benchmarks.access` prints the microseconds of each part.

A request's key is parsed and hashed, its row is read and compared when the request comes in, and read again in the
snapshot that answers. The data folder is a new one, with a thousand keys, on SQLite.
"""

import os
import tempfile
import time
from collections.abc import Callable
from statistics import median

_ROUNDS, _CALLS, _KEYS = 15, 2000, 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"VECTORDB_DATA_DIR": folder, "DJANGO_SETTINGS_MODULE": "vectordb.settings", "DATABASE_URL": ""}
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        _measure()


def _measure() -> None:
    from apps.access.authentication import check_again, recognize
    from apps.access.authorization import authorize
    from apps.access.keys import create_key
    from apps.access.requests import NOBODY, SERVER, current_principal
    from apps.search.snapshots import open_snapshot, read_rows

    keys = [create_key(name=f"key {i}", scopes=["read"], libraries=["docs-*"]).key for i in range(_KEYS)]
    key = keys[_KEYS // 2]
    path = "/api/v1/libraries/docs-en/query"

    def come_in() -> None:
        recognize(NOBODY, path, "127.0.0.1", f"Bearer {key}", "", read_rows)

    come_in()
    principal = current_principal.get()

    parts: dict[str, Callable[[], object]] = {
        "when the request comes in": come_in,
        "what the scopes say": lambda: authorize(principal, "search", "docs-en"),
    }
    times = {name: _microseconds(call) for name, call in parts.items()}
    with open_snapshot() as opened:
        times["again, in the snapshot"] = _microseconds(lambda: check_again(principal, opened.rows))
    current_principal.set(SERVER)
    for name, each in times.items():
        print(f"{name:28} {each:6.1f}")
    print(f"{'together':28} {sum(times.values()):6.1f}")


def _microseconds(call: Callable[[], object]) -> float:
    rounds = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(_CALLS):
            call()
        rounds.append((time.process_time() - began) / _CALLS * 1e6)
    return median(rounds)


if __name__ == "__main__":
    main()
