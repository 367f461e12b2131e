"""The scripts in examples/ do what they say."""

import os
import subprocess
import sys
from pathlib import Path

from tests.server import ROOT, Server


def run(script: str, server: Server, key: str) -> str:
    """What an example prints."""
    own = {"VECTORDB_URL": server.url, "VECTORDB_API_KEY": key, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, str(ROOT / "examples" / script)]
    ended = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_agent_memory(server: Server, key: str) -> None:
    assert run("agent_memory.py", server, key).splitlines() == [
        "What may I offer Anna to drink? ['Anna drinks green tea, without sugar.']",
        "Who must not eat walnuts? ['Ben is allergic to nuts.']",
        "Forgotten about Ben: 2",
        "Left of Ben: []",
    ]
