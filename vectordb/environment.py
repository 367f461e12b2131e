"""Every setting the server reads from its environment: one table of name, default and meaning.

`docs/settings.md` lists the same names, and a test compares the two. A value that cannot be used raises
`ImproperlyConfigured` with one sentence that names the variable and the remedy; the entry points print that sentence
and exit.
"""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from apps.embeddings.config import DEFAULT_MODELS

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True)
class Setting:
    """One environment variable: how its text becomes a value, and what it means to a person."""

    name: str
    default: str
    help: str
    parse: Callable[[str], Any]


def _whole(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if not minimum <= value <= maximum:
            raise ValueError(f"must be a whole number from {minimum} to {maximum}")
        return value

    return parse


def _switch(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in environ.Env.BOOLEAN_TRUE_STRINGS:
        return True
    if lowered in ("0", "false", "off", "no", "n", "f"):
        return False
    raise ValueError("must be 1 or 0 (true/false, on/off and yes/no are understood too)")


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"must be one of: {', '.join(choices)}")
        return text.lower()

    return parse


def _or_empty(parse: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: parse(text) if text else text


def _folder(text: str) -> Path:
    if not text:
        raise ValueError("must be the path of a folder")
    return Path(text).expanduser().resolve()


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("must be HOST:PORT, for example 127.0.0.1:8000")
    if host not in LOOPBACK_HOSTS:
        raise ValueError(
            "must be a loopback address (127.0.0.1, localhost or [::1]): this version has no API keys yet, so whoever "
            "reaches the port may read and delete everything"
        )
    return text


def _database_url(text: str) -> str:
    if not text:
        return text
    if not text.startswith(("sqlite://", "postgres://", "postgresql://")):
        raise ValueError("must begin with sqlite:/// or postgresql:// (empty: SQLite in the data folder)")
    if text.startswith("sqlite:") and ("#" in text or "?" in text):
        raise ValueError("must have %23 for # and %3F for ? in the name of a file")
    try:
        name = environ.Env.db_url_config(text)["NAME"]
    except ValueError:
        name = ""
    if not name or name == ":memory:":
        raise ValueError("must look like postgresql://user:password@host:5432/name or sqlite:////folder/file.sqlite3")
    return text


def sqlite_file(url: str) -> Path:
    """The file that a sqlite:/// URL names."""
    return Path(unquote(url.removeprefix("sqlite:///")))


def _secret(text: str) -> str:
    if text and len(text) < 32:
        raise ValueError("must have at least 32 characters (empty: generated once and kept in the data folder)")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text.strip()


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ValueError("must be an address such as http://localhost:11434/v1, without user, password or query")
    return text


def _hosts(text: str) -> list[str]:
    hosts = [host.strip() for host in text.split(",") if host.strip()]
    if not hosts:
        raise ValueError("must name at least one host, for example localhost,127.0.0.1,[::1]")
    return hosts


SETTINGS: tuple[Setting, ...] = (
    Setting("VECTORDB_DATA_DIR", "./data", "Folder of the database, the index files and the secret key.", _folder),
    Setting("VECTORDB_BIND", "127.0.0.1:8000", "HOST:PORT to serve on; loopback only.", _address),
    Setting("VECTORDB_WORKERS", "2", "Worker processes.", _whole(1, 256)),
    Setting("VECTORDB_THREADS", "4", "Threads of each worker process that run requests.", _whole(1, 256)),
    Setting(
        "VECTORDB_REQUEST_TIMEOUT",
        "60",
        "Seconds after which a worker stuck in a request is replaced.",
        _whole(5, 3600),
    ),
    Setting(
        "VECTORDB_BUSY_TIMEOUT",
        "20",
        "Seconds a write waits for other writers before it is answered 503; below VECTORDB_REQUEST_TIMEOUT.",
        _whole(1, 3600),
    ),
    Setting(
        "VECTORDB_MEMORY_MB",
        "0",
        "Most MiB of vectors and indexes that a worker keeps open, mapped files included; it closes the libraries that "
        "were unused for longest. 0: half of the machine's memory.",
        _whole(0, 1 << 30),
    ),
    Setting(
        "VECTORDB_EMBEDDING_PROVIDER",
        "",
        "Provider of the model that makes vectors of texts for a library that names none: wordllama, hashing, "
        "sentence_transformers, openai or cohere. Empty: wordllama, or hashing where its package is not installed.",
        _or_empty(_one_of("wordllama", "hashing", "sentence_transformers", "openai", "cohere")),
    ),
    Setting(
        "VECTORDB_EMBEDDING_MODEL",
        "",
        "Its model. Empty: l2-supercat-256 of wordllama, hashing-384 of hashing, all-MiniLM-L6-v2 of "
        "sentence_transformers; of others one must be named.",
        str.strip,
    ),
    Setting(
        "VECTORDB_EMBEDDING_TIMEOUT",
        "30",
        "Seconds to embed a request's texts; below VECTORDB_REQUEST_TIMEOUT.",
        _whole(1, 3600),
    ),
    Setting(
        "VECTORDB_EMBEDDING_RETRIES", "2", "Further attempts after a provider's failure that may pass.", _whole(0, 10)
    ),
    Setting(
        "VECTORDB_EMBEDDING_QUERY_CACHE", "1000", "How many queries' vectors a worker keeps.", _whole(0, 1_000_000)
    ),
    Setting(
        "VECTORDB_OPENAI_BASE_URL",
        "https://api.openai.com/v1",
        "Address of OpenAI, or of a compatible server (Ollama, vLLM, TEI).",
        _base_url,
    ),
    Setting("OPENAI_API_KEY", "", "Its key.", str),
    Setting("VECTORDB_OPENAI_DIMENSIONS", "0", "The dimension to ask it for; 0: the model's own.", _whole(0, 65536)),
    Setting("VECTORDB_OPENAI_MAX_BATCH", "256", "Most texts in one request to it.", _whole(1, 2048)),
    Setting("VECTORDB_COHERE_BASE_URL", "https://api.cohere.com", "Address of Cohere.", _base_url),
    Setting("CO_API_KEY", "", "Its key.", str),
    Setting(
        "VECTORDB_SENTENCE_TRANSFORMERS_DEVICE",
        "cpu",
        "Where sentence_transformers computes: cpu, cuda, cuda:1, mps.",
        _not_blank,
    ),
    Setting(
        "VECTORDB_SENTENCE_TRANSFORMERS_THREADS",
        "1",
        "Threads of a computation on the CPU, per worker.",
        _whole(1, 256),
    ),
    Setting("VECTORDB_SAMPLE", "1", "Load the shipped sample library into an empty database.", _switch),
    Setting("VECTORDB_AUTH", "off", "Only `off`: API keys are not built yet.", _one_of("off")),
    Setting(
        "VECTORDB_ALLOWED_HOSTS",
        "localhost,127.0.0.1,[::1]",
        "Host names that requests may be addressed to, separated by commas; a guard against DNS rebinding.",
        _hosts,
    ),
    Setting(
        "VECTORDB_LOG_LEVEL", "info", "Least severity that is logged.", _one_of("debug", "info", "warning", "error")
    ),
    Setting("VECTORDB_DEBUG", "0", "Django's debug mode, for development.", _switch),
    Setting("VECTORDB_MAX_DIMENSION", "8192", "Largest dimension of a library.", _whole(1, 65536)),
    Setting("VECTORDB_MAX_K", "1000", "Largest `k` of a query.", _whole(1, 100_000)),
    Setting("VECTORDB_MAX_WINDOW", "10000", "Largest `offset` + `k` of a query.", _whole(1, 1_000_000)),
    Setting("VECTORDB_MAX_CHUNKS_PER_WRITE", "2000", "Most chunks that one request may write.", _whole(1, 10_000)),
    Setting("VECTORDB_MAX_QUERIES_PER_BATCH", "256", "Most queries in one batch.", _whole(1, 10_000)),
    Setting("VECTORDB_MAX_TEXT_BYTES", "262144", "Longest text of a chunk, in bytes.", _whole(1, 1 << 28)),
    Setting(
        "VECTORDB_MAX_SPLIT_BYTES",
        "2097152",
        "Most text that one request may have split into chunks, in bytes.",
        _whole(1, 1 << 28),
    ),
    Setting("VECTORDB_MAX_METADATA_BYTES", "65536", "Longest metadata, in bytes of JSON.", _whole(2, 1 << 28)),
    Setting("VECTORDB_MAX_METADATA_DEPTH", "16", "Deepest nesting of metadata.", _whole(1, 100)),
    Setting("VECTORDB_MAX_BODY_BYTES", "67108864", "Largest request body, in bytes.", _whole(1024, 1 << 32)),
    Setting(
        "VECTORDB_MAX_ANSWER_BYTES",
        "134217728",
        "Largest answer of queries, lists, chunks by id or facets, in bytes.",
        _whole(1 << 20, 1 << 32),
    ),
    Setting(
        "DATABASE_URL",
        "",
        "Database to use instead of SQLite, for example postgresql://user:password@host:5432/name.",
        _database_url,
    ),
    Setting("SECRET_KEY", "", "Django's signing key; generated into the data folder when empty.", _secret),
)


@dataclass(frozen=True)
class Limits:
    """What a request may ask for; past a limit the answer is 400 (413 for the body) and names the limit."""

    dimension: int
    k: int
    window: int
    chunks_per_write: int
    queries_per_batch: int
    text_bytes: int
    split_bytes: int
    metadata_bytes: int
    metadata_depth: int
    body_bytes: int
    answer_bytes: int


def read() -> dict[str, Any]:
    """Parse every setting of the table from the environment; raise ImproperlyConfigured for the first bad one."""
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        text = os.environ.get(setting.name, setting.default)
        try:
            values[setting.name] = setting.parse(text)
        except ValueError as error:
            raise ImproperlyConfigured(f"{setting.name}={_shown(setting, text)} cannot be used: it {error}.") from None
    longest = values["VECTORDB_REQUEST_TIMEOUT"]
    for name, consequence in (
        ("VECTORDB_BUSY_TIMEOUT", "a waiting write is cut off unanswered"),
        ("VECTORDB_EMBEDDING_TIMEOUT", "the worker is replaced while it waits"),
    ):
        if values[name] >= longest:
            raise ImproperlyConfigured(
                f"{name}={values[name]} cannot be used: it must be below VECTORDB_REQUEST_TIMEOUT={longest}, or "
                f"{consequence}."
            )
    provider, model = values["VECTORDB_EMBEDDING_PROVIDER"], values["VECTORDB_EMBEDDING_MODEL"]
    for is_wrong, remedy in (
        (model and not provider, "needs VECTORDB_EMBEDDING_PROVIDER beside it"),
        (provider and not model and provider not in DEFAULT_MODELS, f"must name a model of {provider}"),
    ):
        if is_wrong:
            raise ImproperlyConfigured(f"VECTORDB_EMBEDDING_MODEL={model!r} cannot be used: it {remedy}.")
    return values


def _shown(setting: Setting, text: str) -> str:
    hidden = setting.name in ("SECRET_KEY", "DATABASE_URL") or setting.name.endswith(("_API_KEY", "_BASE_URL"))
    return "(hidden)" if hidden else repr(text)


def limits(values: dict[str, Any]) -> Limits:
    """The limits among `values`, the result of `read()`."""
    return Limits(**{field.name: values[f"VECTORDB_MAX_{field.name.upper()}"] for field in fields(Limits)})


def memory_budget(mebibytes: int) -> int:
    """The bytes that VECTORDB_MEMORY_MB stands for."""
    if mebibytes:
        return mebibytes << 20
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def prepare_data_dir(folder: Path) -> None:
    """Make the data folder, readable by its owner only; ImproperlyConfigured when that is impossible."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(
            f"VECTORDB_DATA_DIR={str(folder)!r} cannot be used: {error.strerror or error}. Name a folder that can be "
            "created and written."
        ) from None


def secret_key(folder: Path) -> str:
    """The signing key kept in `folder`; made on the first call, once even if several processes start together."""
    path = folder / "secret_key"
    try:
        if not path.exists():
            # Readable by its owner only, and complete before it has its name.
            with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".secret_key.") as draft:
                draft.write(secrets.token_urlsafe(48))
                draft.flush()
                os.fsync(draft.fileno())
                with contextlib.suppress(FileExistsError):
                    os.link(draft.name, path)
        key = path.read_text().strip()
    except OSError as error:
        raise ImproperlyConfigured(
            f"the secret key in {str(folder)!r} can neither be read nor made: {error.strerror or error}. Make the data "
            "folder writable or set SECRET_KEY."
        ) from None
    if len(key) < 32:
        raise ImproperlyConfigured(f"{str(path)!r} is damaged: remove it, and a new key is made at the next start.")
    return key
