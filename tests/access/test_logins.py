"""Guessing passwords over many names: the limit of failed logins of an address."""

from typing import Any

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.contrib.auth.models import User
from django.test import Client
from pytest_django.fixtures import Settings

from apps.access.limits import prepare
from tests.access.callers import mistyped

pytestmark = pytest.mark.django_db

MOST = 3
LOGINS = ("/api/login", "/admin/login/")


class CountingHasher(MD5PasswordHasher):
    """A quick hasher that says how often it was asked."""

    asked = 0

    def encode(self, password: str, salt: str) -> str:
        type(self).asked += 1
        return super().encode(password, salt)


@pytest.fixture(autouse=True)
def _limit(settings: Settings) -> None:
    settings.FAILED_LOGINS_PER_MINUTE = MOST
    settings.PASSWORD_HASHERS = [f"{__name__}.{CountingHasher.__name__}"]
    # Nothing is counted yet.
    prepare(1)
    User.objects.create_superuser("root", password="a pass word")


def log_in(login: str, name: str, password: str, address: str = "192.0.2.1", **options: Any) -> Any:
    return Client(REMOTE_ADDR=address, **options).post(login, {"username": name, "password": password})


@pytest.mark.parametrize("login", LOGINS)
def test_an_address_may_fail_with_so_many_names_and_no_more(login: str) -> None:
    statuses = [log_in(login, f"name-{i}", "wrong").status_code for i in range(MOST + 2)]
    assert statuses == [200] * MOST + [429] * 2
    asked = CountingHasher.asked
    answer = log_in(login, "root", "a pass word")
    assert answer.status_code == 429
    assert answer.json()["code"] == "rate_limited"
    assert "192.0.2.1" in answer.json()["detail"]
    assert 0 < int(answer["Retry-After"]) <= 61
    assert CountingHasher.asked == asked
    page = log_in(login, "root", "a pass word", headers={"Accept": "text/html"})
    assert page.status_code == 429
    assert "Too many credentials of 192.0.2.1 were refused. Wait" in page.content.decode()


def test_the_limit_is_of_one_address() -> None:
    for i in range(MOST):
        log_in("/api/login", f"name-{i}", "wrong")
    assert log_in("/api/login", "root", "a pass word").status_code == 429
    assert log_in("/admin/login/", "root", "a pass word", "192.0.2.2").status_code == 302


def test_a_login_that_succeeds_is_not_counted() -> None:
    for _ in range(MOST + 1):
        assert log_in("/api/login", "root", "a pass word").status_code == 302
    statuses = [log_in("/api/login", f"name-{i}", "wrong").status_code for i in range(MOST + 1)]
    assert statuses == [200] * MOST + [429]


def test_keys_and_passwords_count_together() -> None:
    key = mistyped(f"vdb_{'0' * 12}_{'0' * 38}")
    for _ in range(MOST):
        assert Client(REMOTE_ADDR="192.0.2.1").get("/api/v1/libraries", headers={"X-API-Key": key}).status_code == 401
    assert log_in("/api/login", "root", "a pass word").status_code == 429


def test_without_a_limit_only_the_name_counts(settings: Settings) -> None:
    settings.FAILED_LOGINS_PER_MINUTE = 0
    assert {log_in("/api/login", f"name-{i}", "wrong").status_code for i in range(MOST + 3)} == {200}
