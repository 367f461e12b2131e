"""From what a client presented to a principal: the key's row decides, and every request reads it.

Nothing is kept that could be older, so a key that was revoked is dead for every worker at once. The row is read in each
snapshot that answers, unless nothing was committed since it was: what was written after a key was revoked is never
shown to it. A query's is read once, in the snapshot that it is answered from; for other requests one is read before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hmac import compare_digest
from time import time
from typing import Any, NamedTuple, TypeAlias

from apps.access import last_use
from apps.access.authorization import Scope, authorize, common, unauthorized
from apps.access.credentials import PresentedKey, PresentedToken, parse, presented
from apps.access.limits import note_failed_login
from apps.access.requests import NOBODY, Principal, Refused, current_principal
from apps.access.search_tokens import decode_claims, sign

# Runs a statement and returns its rows, as the database's driver has them.
ReadRows: TypeAlias = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]

# Whoever reaches the port may ask for these: what they show is no secret, or asks who is there itself.
_OPEN_PATHS = frozenset(
    ("/", "/health", "/ready", "/api/v1", "/api/schema", "/api/docs", "/api/login", "/api/logout", "/admin")
)
_OPEN_FOLDERS = ("/admin/", "/static/")

_MALFORMED = "This is no key of this server: it is cut off or mistyped."
_UNKNOWN = "This key is not known here, or no longer: it was revoked, or another secret has taken its place."
_CHANGED = "The key was changed while the request ran. Send it again."


class KeyRow(NamedTuple):
    """What decides about a key, as the database has it."""

    secret_hash: str
    previous_hash: str
    previous_until: Any
    expires_at: Any
    scopes: str
    libraries: str
    name: str
    reads_per_minute: int | None
    writes_per_minute: int | None


_SELECT = f"SELECT {', '.join(KeyRow._fields)} FROM vectordb_key WHERE public_id = %s"


@dataclass(frozen=True, slots=True)
class Proof:
    """What a principal was checked by: the key's row, the hash of the secret, and when a search token ends, in seconds
    since the epoch."""

    row: KeyRow
    hash: str
    ends_at: float | None = None


@dataclass(frozen=True, slots=True)
class JobProof:
    """What the key of a job must reach as long as the job runs: a scope in a library, or in all where it is empty."""

    scope: Scope
    library: str


def is_open(path: str) -> bool:
    """Whether a path needs no credential, whatever is behind it."""
    return path in _OPEN_PATHS or path.startswith(_OPEN_FOLDERS)


def recognize(
    principal: Principal, path: str, address: str, authorization: str, api_key: str, read_rows: ReadRows
) -> Principal:
    """Return who asks for `path`, for all that is done in this thread: whoever the headers Authorization and X-API-Key
    say, where `principal` is nobody yet. Raise Refused, `rate_limited` where too much from `address` was refused."""
    if principal is NOBODY and not is_open(path) and (credential := presented(authorization, api_key)):
        try:
            principal = authenticate(credential, read_rows)
        except Refused:
            note_failed_login(address)
            raise
    current_principal.set(principal)
    return principal


def authenticate(credential: str, read_rows: ReadRows) -> Principal:
    """Return whose `credential` it is. Raise Refused for one that is not good."""
    given = parse(credential)
    if given is None:
        raise unauthorized(_MALFORMED)
    row = _read(given.key_id, read_rows)
    principal = _principal_of_token(given, row) if isinstance(given, PresentedToken) else _principal_of_key(given, row)
    _check(principal.proof, row)
    last_use.note(given.key_id)
    return principal


def check_again(principal: Principal, read_rows: ReadRows) -> None:
    """Raise Refused if the principal's key is not good any more in the state of the database that `read_rows` reads."""
    proof: Proof | JobProof = principal.proof
    if isinstance(proof, JobProof):
        _check_job(principal.key_id, proof, read_rows)
        return
    row = _read(principal.key_id, read_rows)
    _check(proof, row)
    if (row.scopes, row.libraries) != (proof.row.scopes, proof.row.libraries):
        raise unauthorized(_CHANGED)


def _check_job(key_id: str, proof: JobProof, read_rows: ReadRows) -> None:
    """Raise Refused unless the key still reaches what its job does. Whoever rotates a key leaves its jobs alone."""
    found = read_rows(_SELECT, (key_id,))
    if not found:
        raise unauthorized("The key that asked for the job was revoked.")
    row = KeyRow(*found[0])
    if _has_expired(row):
        raise unauthorized("The key that asked for the job has expired.")
    key = Principal(row.name, frozenset(row.scopes.split()), key_id, tuple(row.libraries.split()) or None)
    try:
        authorize(key, proof.scope, proof.library or None, everywhere=not proof.library)
    except Refused:
        reach = f"the library {proof.library!r}" if proof.library else "all libraries"
        detail = f"The key that asked for the job has the scope {proof.scope} for {reach} no longer."
        raise unauthorized(detail) from None


def _read(key_id: str, read_rows: ReadRows) -> KeyRow:
    found = read_rows(_SELECT, (key_id,))
    if not found:
        raise unauthorized(_UNKNOWN)
    return KeyRow(*found[0])


def _check(proof: Proof, row: KeyRow) -> None:
    """Raise Refused unless `row` still has the secret, and neither key nor token has expired by the wall clock."""
    now = time()
    is_previous = bool(row.previous_hash) and now < _seconds(row.previous_until)
    if not (
        compare_digest(proof.hash, row.secret_hash) or (is_previous and compare_digest(proof.hash, row.previous_hash))
    ):
        raise unauthorized(_UNKNOWN)
    if _has_expired(row):
        raise unauthorized("This key has expired.")
    if proof.ends_at is not None and now >= proof.ends_at:
        raise unauthorized("This search token has expired.")


def _has_expired(row: KeyRow) -> bool:
    return row.expires_at is not None and time() >= _seconds(row.expires_at)


@lru_cache(maxsize=256)
def _principal_of_key(given: PresentedKey, row: KeyRow) -> Principal:
    return Principal(
        row.name,
        frozenset(row.scopes.split()),
        given.key_id,
        tuple(row.libraries.split()) or None,
        row.reads_per_minute,
        row.writes_per_minute,
        proof=Proof(row, given.hash),
    )


def _principal_of_token(given: PresentedToken, row: KeyRow) -> Principal:
    signing = [hash for hash in (row.secret_hash, row.previous_hash) if hash]
    hash = next((one for one in signing if compare_digest(sign(given.claims, one), given.signature)), None)
    claims = None if hash is None else decode_claims(given.claims)
    if hash is None or claims is None:
        raise unauthorized(_UNKNOWN)
    # The key may have lost libraries since it signed.
    libraries = common(claims.libraries, row.libraries.split()) if row.libraries else claims.libraries
    return Principal(
        row.name,
        frozenset(["search"]),
        given.key_id,
        libraries,
        row.reads_per_minute,
        row.writes_per_minute,
        is_search_token=True,
        filter=claims.filter,
        include=claims.include,
        proof=Proof(row, hash, claims.ends_at),
    )


def _seconds(moment: datetime) -> float:
    """Seconds since the epoch. SQLite's driver has times without a zone, in UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
