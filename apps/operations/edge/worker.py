"""gunicorn's worker: uvicorn's, with an eye on time."""

import asyncio
import logging
import resource
from functools import partial
from typing import Any

from django.conf import settings
from uvicorn.config import Config
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from apps.libraries.dialects import FilesState, database_files
from apps.operations.edge.connections import Connection, Room
from apps.operations.edge.listener import Listener, Shares
from apps.telemetry import metrics

logger = logging.getLogger(__name__)


class _Server(Server):
    """uvicorn's server, whose connections come from `Listener`s."""

    def __init__(self, config: Config, worker: "Worker") -> None:
        super().__init__(config)
        self._worker = worker
        self._listeners: list[Listener] = []

    async def startup(self, sockets: Any = None) -> None:
        await super().startup([])
        protocol: Any = partial(self.config.http_protocol_class, self.config, self.server_state, {})  # type: ignore
        self._worker.tell_connections(0)
        self._listeners = [Listener(one, protocol, self._is_ahead) for one in sockets]

    def _is_ahead(self, coming: int) -> bool:
        count = len(self.server_state.connections) + coming
        return self._worker.shares.is_ahead(self._worker.column, count)

    async def shutdown(self, sockets: Any = None) -> None:
        self._worker.shares.leave(self._worker.column)
        for listener in self._listeners:
            await listener.close()
        await super().shutdown(sockets)


class Worker(UvicornWorker):  # type: ignore[misc]
    """Serves an `Edge`. A request that runs for too long ends it; others have the grace to finish."""

    _server: Server | None = None
    CONFIG_KWARGS = {"loop": "uvloop", "ws": "none", "lifespan": "off", "proxy_headers": False, "server_header": False}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # A master that has several workers gives them shares in common.
        self.shares, self.column = Shares(1), 0

    def set_gauges(self) -> None:
        """Set what metrics tell of this worker's requests."""
        metrics.RUNNING.set(self.wsgi.threads_running.running)
        metrics.WAITING.set(self.wsgi.threads_running.waiting)
        metrics.CONNECTIONS.set(len(self._server.server_state.connections) if self._server else 0)

    def tell_connections(self, count: int) -> None:
        """Tell the other workers how many connections this one has, as long as it takes more."""
        if self._server is not None and not self._server.should_exit:
            self.shares.set(self.column, count)

    async def _serve(self) -> None:
        limits = settings.LIMITS
        # A request opens files, too.
        most_connections = min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        kept_bytes = 2 * (limits.body_bytes + limits.answer_bytes)
        room = Room(most_connections, kept_bytes, limits.body_bytes, limits.import_bytes, self.tell_connections)
        self.config.app, self.config.http = self.wsgi, partial(Connection, room=room)
        self.config.timeout_graceful_shutdown = self.cfg.graceful_timeout
        self._install_sigquit_handler()
        self._server = server = _Server(self.config, self)
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
