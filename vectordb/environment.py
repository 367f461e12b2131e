"""Every setting that the server reads from its environment, with its default and its check.

`docs/settings.md` says what each means, and a test compares the two. A value that cannot be used raises
`ImproperlyConfigured` with one sentence that names the variable and the remedy; entry points print it and exit.
"""

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from apps.embeddings.config import DEFAULT_MODELS, Config

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})


# Each makes a value of a text, or raises ValueError with the end of a sentence that begins with "it".


def _whole(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        with contextlib.suppress(ValueError):
            if minimum <= int(text) <= maximum:
                return int(text)
        raise ValueError(f"must be a whole number from {minimum} to {maximum}")

    return parse


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise ValueError("must be a number from 0 to 1, such as 0.01")


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"must be one of: {', '.join(filter(None, choices))}")
        return text.lower()

    return parse


def _switch(text: str) -> bool:
    if text.lower() not in (*environ.Env.BOOLEAN_TRUE_STRINGS, "0", "false", "off", "no", "n", "f"):
        raise ValueError("must be 1 or 0 (true/false, on/off and yes/no are understood too)")
    return bool(environ.Env.parse_value(text, bool))


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text.strip()


def _folder(text: str) -> Path:
    if not text:
        raise ValueError("must be the path of a folder")
    return Path(text).expanduser().resolve()


def _place(text: str) -> str:
    """Backups' own place is in manifests and logs, so it may hold no password."""
    text = text.removeprefix("file://")
    if "://" not in text:
        return str(_folder(text)) if text else ""
    if "memory" in text.partition("://")[0].split("::"):
        raise ValueError("must be a folder or a URL of what outlives the process, such as s3://bucket/prefix")
    if urlsplit(text).password is not None:
        raise ValueError("must hold no password: credentials come from the environment of the library that opens it")
    return text.rstrip("/")


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("must be HOST:PORT, for example 127.0.0.1:8000")
    return text


def _hosts(text: str) -> list[str]:
    hosts = [host.strip() for host in text.split(",") if host.strip()]
    if not hosts:
        raise ValueError("must name at least one host, for example localhost,127.0.0.1,[::1]")
    return hosts


def _redis_url(text: str) -> str:
    if text and not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("must look like redis://user:password@host:6379/0")
    return text


def _networks(text: str) -> list[IPv4Network | IPv6Network]:
    try:
        return [ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError("must list addresses and networks, for example 127.0.0.1,10.0.0.0/8,::1") from None


# Of the server's own paths. One of them in front of a path could be either.
_OWN_PATHS = ("api", "admin", "static", "health", "ready", "metrics", "mcp", "console")


def _base_path(text: str) -> str:
    path = text.rstrip("/")
    if path and not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", path):
        raise ValueError("must be a path such as /vectors, of letters, digits and . _ ~ - between slashes")
    if path and path.split("/")[1] in _OWN_PATHS:
        raise ValueError(f"must not begin with a path of the server's own: {', '.join(_OWN_PATHS)}")
    return path


def _origins(text: str) -> list[str]:
    origins = [origin.strip().lower() for origin in text.split(",") if origin.strip()]
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise ValueError("must list origins such as https://app.example.com, without a path")
    return origins


def _base_url(text: str) -> str:
    """The libraries of providers log the addresses they call, so none may hold a password."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ValueError("must be an address such as http://localhost:11434/v1, without user, password or query")
    return text


def _database_url(text: str) -> str:
    if text.startswith("sqlite:") and ("#" in text or "?" in text):
        raise ValueError("must have %23 for # and %3F for ? in the name of a file")
    name = ""
    if text.startswith(("sqlite://", "postgres://", "postgresql://")):
        with contextlib.suppress(ValueError):
            name = environ.Env.db_url_config(text)["NAME"]
    if text and name in ("", ":memory:"):
        raise ValueError("must look like postgresql://user:password@host:5432/name or sqlite:////folder/file.sqlite3")
    return text


def _secret(text: str) -> str:
    if text and len(text) < 32:
        raise ValueError("must have at least 32 characters (empty: generated once and kept in the data folder)")
    return text


SETTINGS: dict[str, tuple[str | float, Callable[[str], Any]]] = {
    "VECTORDB_DATA_DIR": ("data", _folder),
    "VECTORDB_BIND": ("127.0.0.1:8000", _address),
    "VECTORDB_WORKERS": (2, _whole(1, 256)),
    "VECTORDB_THREADS": (4, _whole(1, 256)),
    "VECTORDB_REQUEST_TIMEOUT": (60, _whole(5, 3600)),
    "VECTORDB_BUSY_TIMEOUT": (20, _whole(1, 3600)),
    "VECTORDB_MEMORY_MB": (0, _whole(0, 1 << 30)),
    "VECTORDB_EMBEDDING_PROVIDER": (
        Config.provider,
        _one_of("", "wordllama", "hashing", "sentence_transformers", "openai", "cohere"),
    ),
    "VECTORDB_EMBEDDING_MODEL": (Config.model, str.strip),
    "VECTORDB_EMBEDDING_TIMEOUT": (Config.timeout, _whole(1, 3600)),
    "VECTORDB_EMBEDDING_RETRIES": (Config.retries, _whole(0, 10)),
    "VECTORDB_EMBEDDING_QUERY_CACHE": (Config.query_cache_size, _whole(0, 1_000_000)),
    "VECTORDB_OPENAI_BASE_URL": (Config.openai_base_url, _base_url),
    "OPENAI_API_KEY": (Config.openai_api_key, str),
    "VECTORDB_OPENAI_DIMENSIONS": (Config.openai_dimensions, _whole(0, 65536)),
    "VECTORDB_OPENAI_MAX_BATCH": (Config.openai_max_batch, _whole(1, 2048)),
    "VECTORDB_COHERE_BASE_URL": (Config.cohere_base_url, _base_url),
    "CO_API_KEY": (Config.cohere_api_key, str),
    "VECTORDB_SENTENCE_TRANSFORMERS_DEVICE": (Config.sentence_transformers_device, _not_blank),
    "VECTORDB_SENTENCE_TRANSFORMERS_THREADS": (Config.sentence_transformers_threads, _whole(1, 256)),
    "VECTORDB_SAMPLE": (1, _switch),
    "VECTORDB_AUTH": ("on", _one_of("on", "off")),
    "VECTORDB_INSECURE": (0, _switch),
    "VECTORDB_ALLOWED_HOSTS": ("localhost,127.0.0.1,[::1]", _hosts),
    "VECTORDB_TRUSTED_PROXIES": ("", _networks),
    "VECTORDB_BASE_PATH": ("", _base_path),
    "VECTORDB_TLS": (0, _switch),
    "VECTORDB_CORS_ORIGINS": ("", _origins),
    "VECTORDB_KEY_READS_PER_MINUTE": (0, _whole(0, 1 << 31)),
    "VECTORDB_KEY_WRITES_PER_MINUTE": (0, _whole(0, 1 << 31)),
    "VECTORDB_KEY_CONCURRENT_REQUESTS": (0, _whole(0, 1 << 16)),
    "VECTORDB_ADDRESS_READS_PER_MINUTE": (0, _whole(0, 1 << 31)),
    "VECTORDB_ADDRESS_WRITES_PER_MINUTE": (0, _whole(0, 1 << 31)),
    "VECTORDB_FAILED_LOGINS_PER_MINUTE": (300, _whole(0, 1 << 31)),
    "VECTORDB_MAX_DISK_PERCENT": (100, _whole(1, 100)),
    "VECTORDB_MAX_MEMORY_PERCENT": (100, _whole(1, 100)),
    "VECTORDB_MCP_WRITE": (0, _switch),
    "VECTORDB_AUDIT_DAYS": (90, _whole(0, 36_500)),
    "VECTORDB_BACKUP_URL": ("", _place),
    "VECTORDB_BACKUP_INTERVAL_HOURS": (0, _whole(0, 8760)),
    "VECTORDB_BACKUP_KEEP": (7, _whole(0, 10_000)),
    "VECTORDB_BACKUP_TEST_RESTORE": (0, _switch),
    "VECTORDB_BACKUP_BEFORE_MIGRATE": ("auto", _one_of("auto", "on", "off")),
    "VECTORDB_JOB_DAYS": (30, _whole(0, 36_500)),
    "VECTORDB_IDEMPOTENCY_HOURS": (24, _whole(1, 8760)),
    "VECTORDB_LOG_LEVEL": ("info", _one_of("debug", "info", "warning", "error")),
    "VECTORDB_LOG_FORMAT": ("console", _one_of("console", "json")),
    "VECTORDB_LOG_REQUESTS": (1, _switch),
    "VECTORDB_SLOW_QUERY_MS": (1000, _whole(0, 3_600_000)),
    "VECTORDB_METRICS": ("admin", _one_of("admin", "open", "off")),
    "VECTORDB_METRICS_LIBRARIES": (0, _whole(0, 1000)),
    "VECTORDB_RECALL_WATCH": (0.01, _share),
    "VECTORDB_DEBUG": (0, _switch),
    "VECTORDB_MAX_DIMENSION": (8192, _whole(1, 65536)),
    "VECTORDB_MAX_K": (1000, _whole(1, 100_000)),
    "VECTORDB_MAX_WINDOW": (10_000, _whole(1, 1_000_000)),
    "VECTORDB_MAX_CHUNKS_PER_WRITE": (2000, _whole(1, 10_000)),
    "VECTORDB_MAX_QUERIES_PER_BATCH": (256, _whole(1, 10_000)),
    "VECTORDB_MAX_TEXT_BYTES": (256 << 10, _whole(1, 1 << 28)),
    "VECTORDB_MAX_SPLIT_BYTES": (2 << 20, _whole(1, 1 << 28)),
    "VECTORDB_MAX_EMBEDDED_BYTES": (8 << 20, _whole(1, 1 << 32)),
    "VECTORDB_MAX_METADATA_BYTES": (64 << 10, _whole(2, 1 << 28)),
    "VECTORDB_MAX_METADATA_DEPTH": (16, _whole(1, 100)),
    "VECTORDB_MAX_BODY_BYTES": (64 << 20, _whole(1024, 1 << 32)),
    "VECTORDB_MAX_IMPORT_BYTES": (8 << 30, _whole(1024, 1 << 50)),
    "VECTORDB_MAX_BODY_VALUES": (500_000, _whole(10_000, 1 << 28)),
    "VECTORDB_MAX_REQUEST_COST": (4_000_000, _whole(100_000, 1 << 40)),
    "VECTORDB_MAX_REQUEST_MS": (10_000, _whole(100, 3_600_000)),
    "VECTORDB_MAX_SCANNED_ROWS": (300_000_000, _whole(100_000, 1 << 50)),
    "VECTORDB_MAX_ANSWER_BYTES": (128 << 20, _whole(1 << 20, 1 << 32)),
    "VECTORDB_MAX_TOOL_CHARACTERS": (40_000, _whole(4000, 1 << 24)),
    "REDIS_URL": ("", _redis_url),
    "DATABASE_URL": ("", _database_url),
    "SECRET_KEY": ("", _secret),
}
_HIDDEN = ("SECRET_KEY", "DATABASE_URL", "REDIS_URL", "_API_KEY", "_BASE_URL")


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
    embedded_bytes: int
    metadata_bytes: int
    metadata_depth: int
    body_bytes: int
    import_bytes: int
    body_values: int
    request_cost: int
    request_ms: int
    scanned_rows: int
    answer_bytes: int
    tool_characters: int


def read() -> dict[str, Any]:
    """The value of every setting; raise ImproperlyConfigured for the first that cannot be used."""
    values: dict[str, Any] = {}
    for name, (default, parse) in SETTINGS.items():
        text = os.environ.get(name, str(default))
        try:
            values[name] = parse(text)
        except ValueError as error:
            shown = "(hidden)" if name.endswith(_HIDDEN) else repr(text)
            raise ImproperlyConfigured(f"{name}={shown} cannot be used: it {error}.") from None
    longest = values["VECTORDB_REQUEST_TIMEOUT"]
    for name in ("VECTORDB_BUSY_TIMEOUT", "VECTORDB_EMBEDDING_TIMEOUT"):
        if values[name] >= longest:
            raise ImproperlyConfigured(
                f"{name}={values[name]} cannot be used: it must be below VECTORDB_REQUEST_TIMEOUT={longest}, or a "
                "request that waits is cut off unanswered."
            )
    if values["VECTORDB_AUTH"] == "off" and not values["VECTORDB_INSECURE"]:
        _refuse_without_keys(values)
    provider, model = values["VECTORDB_EMBEDDING_PROVIDER"], values["VECTORDB_EMBEDDING_MODEL"]
    for is_wrong, remedy in (
        (model and not provider, "needs VECTORDB_EMBEDDING_PROVIDER beside it"),
        (provider and not model and provider not in DEFAULT_MODELS, f"must name a model of {provider}"),
    ):
        if is_wrong:
            raise ImproperlyConfigured(f"VECTORDB_EMBEDDING_MODEL={model!r} cannot be used: it {remedy}.")
    return values


def _refuse_without_keys(values: dict[str, Any]) -> None:
    """Raise ImproperlyConfigured where others than this machine's own programs can reach a server without keys."""
    is_bound_beyond = values["VECTORDB_BIND"].rpartition(":")[0] not in LOOPBACK_HOSTS
    for name, is_reached, remedy in (
        ("VECTORDB_BIND", is_bound_beyond, "Bind a loopback address (127.0.0.1, localhost or [::1])"),
        ("VECTORDB_TRUSTED_PROXIES", values["VECTORDB_TRUSTED_PROXIES"], "Let no proxy pass requests on"),
        ("VECTORDB_TLS", values["VECTORDB_TLS"], "Let no proxy pass requests on"),
    ):
        if is_reached:
            shown = os.environ.get(name, values[name])
            raise ImproperlyConfigured(
                f"VECTORDB_AUTH=off cannot be used with {name}={shown}: without keys, whoever reaches the port may "
                f"read and delete everything. {remedy}, leave VECTORDB_AUTH on, or set VECTORDB_INSECURE=1 where "
                "something else guards the port."
            )


def limits(values: dict[str, Any]) -> Limits:
    """The limits among `values`, the result of `read()`."""
    return Limits(**{field.name: values[f"VECTORDB_MAX_{field.name.upper()}"] for field in fields(Limits)})


def sqlite_file(url: str) -> Path:
    """The file that a sqlite:/// URL names."""
    return Path(unquote(url.removeprefix("sqlite:///")))


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
