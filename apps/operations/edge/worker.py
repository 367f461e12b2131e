"""gunicorn's worker: uvicorn's, with an eye on time."""

import asyncio
import contextlib
import logging
import resource
from functools import partial
from typing import Any

from django.conf import settings
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from apps.libraries.dialects import FilesState, database_files
from apps.operations.edge.connections import Connection, Room
from apps.telemetry import metrics

logger = logging.getLogger(__name__)


class _Server(Server):
    """uvicorn's server, which at its end takes in those that have connected already."""

    async def shutdown(self, sockets: Any = None) -> None:
        protocol: Any = partial(self.config.http_protocol_class, self.config, self.server_state, {})  # type: ignore
        for listener in sockets:
            # The system would reset those that are in the queue when the last worker closes it.
            with contextlib.suppress(BlockingIOError):
                while True:
                    await asyncio.get_running_loop().connect_accepted_socket(protocol, listener.accept()[0])
        await super().shutdown(sockets)


class Worker(UvicornWorker):  # type: ignore[misc]
    """Serves an `Edge`. A request that runs for too long ends it; others have the grace to finish."""

    _server: Server | None = None
    CONFIG_KWARGS = {"loop": "uvloop", "ws": "none", "lifespan": "off", "proxy_headers": False, "server_header": False}

    def set_gauges(self) -> None:
        """Set what metrics tell of this worker's requests."""
        metrics.RUNNING.set(self.wsgi.threads_running.running)
        metrics.WAITING.set(self.wsgi.threads_running.waiting)
        metrics.CONNECTIONS.set(len(self._server.server_state.connections) if self._server else 0)

    async def _serve(self) -> None:
        limits = settings.LIMITS
        # A request opens files, too.
        most_connections = min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        room = Room(most_connections, 2 * (limits.body_bytes + limits.answer_bytes), limits.body_bytes)
        self.config.app, self.config.http = self.wsgi, partial(Connection, room=room)
        self.config.timeout_graceful_shutdown = self.cfg.graceful_timeout
        self._install_sigquit_handler()
        self._server = server = _Server(self.config)
        self._tick(server)
        await server.serve(self.sockets)

    def _tick(self, server: Server) -> None:
        """Every second, also while the worker ends: show life, end what takes too long, look at the database files."""
        loop = asyncio.get_running_loop()
        loop.call_later(1, self._tick, server)
        self.notify()
        for connection in server.server_state.connections:
            # Each in a call of its own, so that one that fails stops no other.
            loop.call_soon(connection.tick)  # type: ignore[union-attr]
            if server.should_exit:
                # The server told those that it knew of; one may have been accepted and not been made then.
                loop.call_soon(connection.shutdown)
        if self.wsgi.answer_overdue():
            server.should_exit = True
        if not server.should_exit and database_files() is FilesState.REPLACED:
            logger.warning("the files of the database were replaced: this worker ends, and another opens what is there")
            server.should_exit = True
