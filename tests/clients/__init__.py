"""Clients that are generated from the schema, used against a server: `python -m tests.clients`."""
