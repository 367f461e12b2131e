"""What the environment may say: each value that cannot be used is refused with one sentence that says what to do."""

import re
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from vectordb import environment

pytestmark = pytest.mark.any_database

BAD_VALUES = [
    ("VECTORDB_BIND", "127.0.0.1", "HOST:PORT"),
    ("VECTORDB_BIND", "127.0.0.1:99999", "HOST:PORT"),
    ("VECTORDB_WORKERS", "0", "from 1 to 256"),
    ("VECTORDB_WORKERS", "two", "from 1 to 256"),
    ("VECTORDB_THREADS", "1.5", "from 1 to 256"),
    ("VECTORDB_REQUEST_TIMEOUT", "", "from 5 to 3600"),
    ("VECTORDB_BUSY_TIMEOUT", "60", "below VECTORDB_REQUEST_TIMEOUT"),
    ("VECTORDB_SAMPLE", "maybe", "1 or 0"),
    ("VECTORDB_DEBUG", "2", "1 or 0"),
    ("VECTORDB_AUTH", "maybe", "on, off"),
    ("VECTORDB_INSECURE", "perhaps", "1 or 0"),
    ("VECTORDB_EMBEDDING_PROVIDER", "chroma", "wordllama, hashing"),
    ("VECTORDB_EMBEDDING_MODEL", "hashing-64", "needs VECTORDB_EMBEDDING_PROVIDER"),
    ("VECTORDB_LOG_LEVEL", "loud", "debug, info, warning, error"),
    ("VECTORDB_MAX_K", "-1", "from 1 to"),
    ("DATABASE_URL", "mysql://localhost/x", "or sqlite:////folder"),
    ("DATABASE_URL", "postgresql://localhost:port/x", "postgresql://"),
    ("DATABASE_URL", "sqlite:////srv/vec#one.sqlite3", "%23"),
    ("DATABASE_URL", "sqlite:////srv/vec?one.sqlite3", "%3F"),
    ("SECRET_KEY", "too short", "32 characters"),
    ("VECTORDB_DATA_DIR", "", "folder"),
    ("VECTORDB_EMBEDDING_TIMEOUT", "0", "from 1 to 3600"),
    ("VECTORDB_EMBEDDING_TIMEOUT", "60", "below VECTORDB_REQUEST_TIMEOUT"),
    ("VECTORDB_EMBEDDING_RETRIES", "-1", "from 0 to 10"),
    ("VECTORDB_EMBEDDING_QUERY_CACHE", "-1", "from 0 to"),
    ("VECTORDB_OPENAI_MAX_BATCH", "0", "from 1 to 2048"),
    ("VECTORDB_OPENAI_DIMENSIONS", "-1", "from 0 to"),
    ("VECTORDB_SENTENCE_TRANSFORMERS_THREADS", "0", "from 1 to 256"),
    ("VECTORDB_TRUSTED_PROXIES", "proxy.example.com", "10.0.0.0/8"),
    ("VECTORDB_TRUSTED_PROXIES", "10.0.0.1/8", "10.0.0.0/8"),
    ("VECTORDB_BASE_PATH", "vectors", "such as /vectors"),
    ("VECTORDB_BASE_PATH", "/a//b", "such as /vectors"),
    ("VECTORDB_BASE_PATH", "/a/../b", "such as /vectors"),
    ("VECTORDB_BASE_PATH", "/api/vectors", "a path of the server's own"),
    ("VECTORDB_CORS_ORIGINS", "*", "https://app.example.com"),
    ("VECTORDB_CORS_ORIGINS", "app.example.com", "https://app.example.com"),
    ("VECTORDB_CORS_ORIGINS", "https://app.example.com/", "without a path"),
    ("VECTORDB_MAX_DISK_PERCENT", "0", "from 1 to 100"),
    ("VECTORDB_BACKUP_URL", "memory://x", "outlives the process"),
    ("VECTORDB_KEY_READS_PER_MINUTE", "-1", "from 0 to"),
    ("REDIS_URL", "localhost:6379", "redis://"),
    *(
        (f"VECTORDB_{service}_BASE_URL", url, "an address such as http://localhost:11434/v1")
        for service in ("OPENAI", "COHERE")
        for url in (
            "",
            "localhost:1",
            "ftp://host/v1",
            "http://",
            "http://me:pa55word@host/v1",
            "https://h/?key=pa55word",
        )
    ),
]


@pytest.mark.parametrize(("name", "value", "remedy"), BAD_VALUES)
def test_a_bad_value_is_refused_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, remedy: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured) as refused:
        environment.read()
    assert_is_sentence(str(refused.value), name, remedy)
    assert "pa55word" not in str(refused.value)


def test_a_provider_that_has_no_default_model_must_be_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECTORDB_EMBEDDING_PROVIDER", "openai")
    with pytest.raises(ImproperlyConfigured) as refused:
        environment.read()
    assert_is_sentence(str(refused.value), "VECTORDB_EMBEDDING_MODEL", "must name a model of openai")


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:////srv/c++/a.sqlite3", "/srv/c++/a.sqlite3"),
        ("sqlite:////srv/50%2525 vec%23one.sqlite3", "/srv/50%25 vec#one.sqlite3"),
        ("sqlite:///data/a.sqlite3", "data/a.sqlite3"),
    ],
)
def test_a_url_names_a_file(url: str, file: str) -> None:
    assert environment.sqlite_file(url) == Path(file)


def test_a_relative_data_folder_begins_at_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VECTORDB_DATA_DIR", raising=False)
    assert environment.read()["VECTORDB_DATA_DIR"] == tmp_path / "data"
    monkeypatch.setenv("VECTORDB_DATA_DIR", "elsewhere")
    assert environment.read()["VECTORDB_DATA_DIR"] == tmp_path / "elsewhere"


def test_a_place_of_backups_by_a_url_of_a_file_is_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VECTORDB_BACKUP_URL", f"file://{tmp_path}/backups/")
    assert environment.read()["VECTORDB_BACKUP_URL"] == f"{tmp_path}/backups"


@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL", "REDIS_URL", "VECTORDB_OPENAI_BASE_URL"])
def test_a_value_that_may_be_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "hunter2")
    with pytest.raises(ImproperlyConfigured) as refused:
        environment.read()
    assert "hunter2" not in str(refused.value)


def assert_is_sentence(text: str, name: str, remedy: str) -> None:
    assert text.startswith(f"{name}=")
    assert remedy in text
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VECTORDB_BIND", "0.0.0.0:8000"),
        ("VECTORDB_BIND", "[::]:8000"),
        ("VECTORDB_BIND", "example.com:8000"),
        ("VECTORDB_TRUSTED_PROXIES", "127.0.0.1"),
        ("VECTORDB_TLS", "1"),
    ],
)
def test_others_are_served_with_keys_or_where_something_else_guards_the_port(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert environment.read()["VECTORDB_AUTH"] == "on"
    monkeypatch.setenv("VECTORDB_AUTH", "off")
    with pytest.raises(
        ImproperlyConfigured, match=rf"VECTORDB_AUTH=off .* {name}={re.escape(value)}: .* VECTORDB_INSECURE=1"
    ):
        environment.read()
    monkeypatch.setenv("VECTORDB_INSECURE", "1")
    assert environment.read()["VECTORDB_AUTH"] == "off"
