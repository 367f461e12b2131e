"""`manage.py serve`: migrate, load the sample into an empty database, and serve."""

import contextlib
import json
import os
import shlex
import socket
import sys
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, connections

from apps.access.keys import ADMIN_KEY_FILE, NewKey, make_admin_key
from apps.embeddings.errors import NotInstalled
from apps.embeddings.registry import load_before_fork
from apps.engine import kernels
from apps.engine.indexes import registry
from apps.installation import PROGRAM
from apps.libraries.dialects import create_database, database_name, is_damaged, make_data_folder
from apps.libraries.models import Library
from apps.libraries.schema import Schema
from apps.operations import sample
from apps.operations.edge.uploads import delete_uploads
from apps.operations.management.base import one_sentence_errors
from apps.operations.management.commands import load_sample
from apps.operations.process import raise_open_file_limit
from apps.transfer.backups.restore import serving_lock, sweep_restores
from apps.transfer.backups.stores import open_store
from apps.transfer.errors import TransferError


class Command(BaseCommand):
    help = "Migrate, load the sample into an empty database, and serve until stopped. Settings: docs/settings.md."

    def handle(self, *args: Any, **options: Any) -> None:
        # What is in the data folder is nobody else's business.
        os.umask(0o077)
        raise_open_file_limit()
        _check_port_is_free()
        make_data_folder()
        with contextlib.ExitStack() as stack:
            with one_sentence_errors():
                # All processes of this server have it, so that nobody restores a backup under one of them.
                if not stack.enter_context(serving_lock()):
                    raise CommandError(f"A backup is being restored into {settings.DATA_DIR}. Start again after that.")
                sweep_restores()
                made = self._prepare_database()
            self._serve(made)

    def _serve(self, made: NewKey | None) -> None:
        # It is made now if it was not there: a worker could not say what is wrong with it.
        bool(settings.SECRET_KEY)
        # Before the fork, so that the workers share them. Otherwise workers load them when they are compiled.
        if kernels.cache.is_complete():
            kernels.load()
        registry.import_all()
        try:
            load_before_fork(settings.EMBEDDINGS.default[0])
        except NotInstalled as error:
            raise CommandError(str(error)) from None
        self._greet(made)
        self._check_place_of_backups()
        # A connection that a worker inherits by the fork would be shared, and damaged.
        connections.close_all()
        from apps.operations.server import Server

        sys.argv = sys.argv[:1]
        Server().run()

    def _prepare_database(self) -> NewKey | None:
        """Migrate, and fill what is empty; return the admin key if it is new."""
        if is_damaged():
            call_command("check_database", stdout=self.stdout, stderr=self.stderr)
        create_database(connection)
        delete_uploads()
        schema = Schema(connection)
        schema.refuse_newer()
        if not schema.applied:
            self.stdout.write(f"This is a new database: {database_name()}")
        call_command("migrate", verbosity=0, interactive=False, stdout=self.stdout)
        made = make_admin_key(settings.DATA_DIR) if settings.AUTH else None
        if settings.LOAD_SAMPLE and not Library.objects.exists():
            # Its own deed, so it is not in the audit trail, where the command is.
            load_sample.Command().handle()
        return made

    def _check_place_of_backups(self) -> None:
        """Warn about a place that does not work: otherwise the first backup that is due would find out."""
        if settings.BACKUP_URL:
            try:
                open_store().check()
            except TransferError as error:
                self.stderr.write(f"Warning: no backup can be made, as VECTORDB_BACKUP_URL is: {error}")

    def _greet(self, made: NewKey | None) -> None:
        url = f"http://{settings.BIND}"
        libraries = f"{url}/api/v1/libraries"
        self.stdout.write(f"\nvectordb {settings.VERSION} serves {settings.DATA_DIR} on {url}")
        self.stdout.write(f"  {url}/api/v1/   browse    {url}/api/docs   reference    {url}/admin/   admin")
        authorization = self._explain_keys(made)
        self.stdout.write("Try it:")
        missing = sample.missing()
        for library_id, query in sample.QUERIES.items():
            if library_id not in missing:
                body = f"{authorization}-H 'Content-Type: application/json' -d '{json.dumps(query)}'"
                self.stdout.write(f"  curl -s {libraries}/{library_id}/query {body}")
        if len(missing) == len(sample.QUERIES):
            self.stdout.write(f"  curl -s {libraries} {authorization}".rstrip())
        page = libraries if sample.HANDBOOK in missing else f"{libraries}/{sample.HANDBOOK}"
        self.stdout.write(f"  and in a browser: {page}\n")
        self.stdout.flush()

    def _explain_keys(self, made: NewKey | None) -> str:
        """Say which key opens this server; return how a shell sends it."""
        if not settings.AUTH:
            self.stdout.write(
                "VECTORDB_AUTH=off: no keys are asked for, and whoever reaches the port may do everything."
            )
            return ""
        file = settings.DATA_DIR / ADMIN_KEY_FILE
        if made is not None:
            self.stdout.write(f"The admin key, which is printed this once: {made.key}")
        if file.exists():
            self.stdout.write(f"An admin key is in the file {file}")
            return f'-H "Authorization: Bearer $(cat {shlex.quote(str(file))})" '
        self.stdout.write(f"Requests need an API key; {PROGRAM} create_key makes one.")
        return '-H "Authorization: Bearer $KEY" '


def _check_port_is_free() -> None:
    host, _, port = settings.BIND.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise CommandError(
                f"VECTORDB_BIND={settings.BIND} cannot be served on: {(error.strerror or str(error)).lower()}. "
                "Stop what uses it, or set VECTORDB_BIND to another port, for example 127.0.0.1:8001."
            ) from error
