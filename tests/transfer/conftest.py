"""Tests of one database alone are not collected on another; each test asks as the server."""

import pytest
from django.db import connection

from apps.access.requests import SERVER, current_principal

collect_ignore = [] if connection.vendor == "postgresql" else ["test_postgresql_restores.py"]


@pytest.fixture(autouse=True)
def _as_the_server() -> None:
    # Requests of earlier tests in this thread leave their principal.
    current_principal.set(SERVER)
