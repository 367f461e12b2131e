"""Header Retry-After, and what services say of their errors in forms that differ."""

import time
from email.utils import formatdate

import pytest

from apps.embeddings.providers.network import Service, retry_after

SERVICE = Service("openai", "a-model", "http://host:1/v1", "URL", "KEY", "very-secret")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("7", 7), ("0.5", 0.5), ("-3", 0), ("soon", None), ("", None), ("inf", None), ("nan", None)],
)
def test_retry_after_in_seconds(text: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": text}) == seconds


def test_retry_after_as_a_date() -> None:
    seconds = retry_after({"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert seconds is not None
    assert 90 < seconds <= 100
    assert retry_after({"retry-after": formatdate(0, usegmt=True)}) == 0


def test_no_retry_after() -> None:
    assert retry_after({"content-type": "text/html"}) is None


@pytest.mark.parametrize(
    "body",
    [
        "it rains",
        {"error": "it rains"},
        {"message": "it  rains\n"},
        {"detail": "it rains."},
        {"error": {"message": "it rains", "code": None}, "detail": None},
    ],
)
def test_what_a_service_says_is_found_in_its_errors(body: object) -> None:
    assert str(SERVICE.status_error(500, body, {})).endswith("http://host:1 answered HTTP 500: it rains.")


@pytest.mark.parametrize("body", [None, 7, [], {}, {"error": {}}, "<html>very-secret</html>", {"detail": [{"loc": 1}]}])
def test_what_is_no_sentence_is_left_out(body: object) -> None:
    assert str(SERVICE.status_error(500, body, {})).endswith("http://host:1 answered HTTP 500.")


def test_a_long_sentence_is_cut() -> None:
    assert len(str(SERVICE.status_error(400, "x" * 10_000, {}))) < 500


def test_the_key_is_shown_nowhere() -> None:
    assert "very-secret" not in repr(SERVICE)
    assert "very-secret" not in str(SERVICE.status_error(500, {"error": "bad very-secret!"}, {}))
