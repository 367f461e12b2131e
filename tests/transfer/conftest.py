"""Tests of one database alone are not collected on another."""

from django.db import connection

collect_ignore = [] if connection.vendor == "postgresql" else ["test_postgresql_restores.py"]
