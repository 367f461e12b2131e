"""Transactions of writes. The key of whoever asks is read again once one has begun, and nobody changes it until the
end: on SQLite the transaction keeps other writers out, on PostgreSQL it shares a lock of the row. So nothing is
committed for a key once its revocation was answered.

A change of a key waits for the key's writes under way. On PostgreSQL, those that share a row's lock never wait for who
wants to change it, so a busy key could not be revoked; an advisory lock, whose waiters have turns, is taken before.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

from apps.access.authentication import check_again
from apps.access.requests import current_principal

# The first number of the advisory locks of keys.
_KEYS = int.from_bytes(b"keys")


@contextmanager
def write_transaction() -> Iterator[None]:
    """A transaction of whoever asks. Raises Refused where their key is not good any more."""
    with transaction.atomic():
        check_key()
        yield


@contextmanager
def key_transaction(key_id: str) -> Iterator[None]:
    """As `write_transaction`, of a change of a key: it begins once the key's writes under way are over."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            _lock_keys(key_id)
        check_key()
        yield


def check_key() -> None:
    """Return if the key of whoever asks is good, or they have none; within a transaction, it is so until that ends.
    Raises Refused."""
    principal = current_principal.get()
    if principal.proof is not None:
        check_again(principal, _read_for_write)


def _read_for_write(sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    if connection.vendor != "postgresql":
        return _rows(sql, params)
    condition = f"pg_try_advisory_xact_lock_shared({_KEYS}, hashtext(public_id))"
    if found := _rows(f"{sql} AND {condition} FOR SHARE", params):
        return found
    _rows(f"SELECT pg_advisory_xact_lock_shared({_KEYS}, hashtext(%s))", params)
    return _rows(f"{sql} FOR SHARE", params)


def _rows(sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def _lock_keys(changed: str) -> None:
    """Lock a key for its change, and share that of whoever asks; in one order, as two keys may change each other."""
    principal = current_principal.get()
    own = {principal.key_id} if principal.proof is not None else set()
    for key_id in sorted({changed} | own):
        lock = "pg_advisory_xact_lock" if key_id == changed else "pg_advisory_xact_lock_shared"
        _rows(f"SELECT {lock}({_KEYS}, hashtext(%s))", [key_id])
