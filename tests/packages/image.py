"""Run the container image as an orchestrator would, and ask it a question.

Run by `make check-image` as `python -m tests.packages.image ENGINE IMAGE [OPTION_OF_RUN ...]`. Raises where something
does not work.
"""

import json
import subprocess
import sys
import time
import uuid

from tests.packages.question import ask, is_ready
from tests.server import Server, until


def main(engine: str, image: str, *options: str) -> None:
    """Print the image's size, and the seconds to its first answer from a read-only container without privileges."""

    def run(*command: str) -> str:
        ended = subprocess.run([engine, *command], stdout=subprocess.PIPE, text=True, check=True)
        return ended.stdout.strip()

    name = f"vectordb-check-{uuid.uuid4().hex[:8]}"
    server = Server(".")  # it knows a free port
    strict = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    place = ["--name", name, "--volume", f"{name}:/data", "--publish", f"127.0.0.1:{server.port}:8000"]
    began = time.monotonic()
    try:
        run("run", "--detach", *strict, *place, *options, image)
        until(lambda: is_ready(server.url), "it is ready")
        ask(server.url, run("exec", name, "cat", "/data/admin_key"))
        answered = time.monotonic() - began
        assert run("exec", name, "id", "-u") == "10001"
        # Once, by hand: whether anything runs it at intervals is the host's affair.
        run("exec", name, *_health_check(run("image", "inspect", image)))
        # Another process of the image: a command beside the server, on its data.
        assert run("exec", name, "vectordb", "create_key", "check", "--scope", "read").startswith("vdb_")
        kernels = "from apps.engine.kernels import cache; print(cache.is_complete(), cache.folder())"
        print("compiled:", run("exec", name, "python", "-c", kernels))  # noqa: T201
        run("stop", "-t", "30", name)
        assert run("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
    except BaseException:
        subprocess.run([engine, "logs", name], check=False)
        raise
    finally:
        subprocess.run([engine, "rm", "--force", name], check=False)
        subprocess.run([engine, "volume", "rm", "--force", name], check=False)
    size = int(run("image", "inspect", "--format", "{{.Size}}", image))
    print(f"{image}: {size / 1e6:.0f} MB, first answer after {answered:.1f} s")  # noqa: T201


def _health_check(inspected: str) -> list[str]:
    """The command of an image's health check, in what Docker or Podman knows of it. KeyError when it has none."""
    (image,) = json.loads(inspected)
    kind, *command = (image["Config"].get("Healthcheck") or image["Healthcheck"])["Test"]
    assert kind == "CMD"
    return command


if __name__ == "__main__":
    main(*sys.argv[1:])
