"""Run by `make test-sdk-wheel` in an environment that has the package and its dependency alone."""

import asyncio
import contextlib
from array import array
from importlib.metadata import version

from fake_server import Reply, answering

from vectordb_client import AsyncClient, Client, NotFound

HIT = {"id": "a", "document_id": None, "score": 1.0, "distance": 0.0, "embedding": "AACAPwAAAEA="}
META = {"revision": 1, "index": "brute_force", "exact": True, "plan": "", "scanned": 1, "took_ms": 0.1}
FOUND, WRITTEN = Reply(body={"results": [HIT], "meta": META}), Reply(body={"ids": ["a"], "created": 1, "updated": 0})
ABSENT = Reply(404, {"detail": "There is no such thing."})


async def ask(url: str) -> None:
    async with AsyncClient(url) as client:
        assert (await client.library("a").query([1, 2]))[0].embedding == array("f", [1, 2])
        assert (await client.library("a").upload([{"vector": [1, 2]}])).created == 1


def main() -> None:
    with answering(FOUND, WRITTEN, ABSENT, Reply(503), FOUND, WRITTEN) as server:
        with Client(server.url) as client:
            assert client.library("a").query(array("f", [1, 2]))[0].embedding == array("f", [1, 2])
            assert client.library("a").upload(vectors=[array("f", [1, 2])]).created == 1
            with contextlib.suppress(NotFound):
                raise AssertionError(client.libraries.get("a"))
        asyncio.run(ask(server.url))
    print("vectordb-client", version("vectordb-client"), "works with httpx2", version("httpx2"))


if __name__ == "__main__":
    main()
