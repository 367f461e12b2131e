"""gunicorn's worker: uvicorn's, with an eye on time."""

import asyncio
import contextlib
from functools import partial
from typing import Any

from django.conf import settings
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from apps.operations.edge.connections import Connection, Room

_MOST_CONNECTIONS = 1000


class _Server(Server):
    """uvicorn's server, which at its end takes in those that have connected already."""

    async def shutdown(self, sockets: Any = None) -> None:
        waiting = []
        for listener in sockets:
            # The system would reset those that are in the queue when the last worker closes it.
            with contextlib.suppress(BlockingIOError):
                while True:
                    waiting.append(listener.accept()[0])
        loop = asyncio.get_running_loop()
        make_connection: Any = self.config.http_protocol_class
        make_connection = partial(make_connection, config=self.config, server_state=self.server_state, app_state={})
        for client in waiting:
            await loop.connect_accepted_socket(make_connection, client)
        await super().shutdown(sockets)


class Worker(UvicornWorker):  # type: ignore[misc]
    """Serves an `Edge`. A request that runs for too long ends it; others have the grace to finish."""

    def __init__(self, *args: Any, **options: Any) -> None:
        limits = settings.LIMITS
        self._room = Room(
            connections=_MOST_CONNECTIONS,
            kept_bytes=2 * (limits.body_bytes + limits.answer_bytes),
            body_bytes=limits.body_bytes,
        )
        self.CONFIG_KWARGS = {
            "loop": "uvloop",
            "http": partial(Connection, room=self._room),
            "ws": "none",
            "lifespan": "off",
            "interface": "asgi3",
            "proxy_headers": False,
            "server_header": False,
            "access_log": False,
        }
        super().__init__(*args, **options)
        self.config.timeout_graceful_shutdown = self.cfg.graceful_timeout

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = _Server(config=self.config)
        self._install_sigquit_handler()
        watch = asyncio.create_task(self._watch(server))
        await server.serve(sockets=self.sockets)
        watch.cancel()

    async def _watch(self, server: Server) -> None:
        """Every second, also while the worker ends: show life, and end what takes too long."""
        while True:
            self.notify()
            self._room.tick()
            if self.wsgi.answer_overdue():
                server.should_exit = True
            await asyncio.sleep(1)
