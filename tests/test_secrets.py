"""No file of the repository holds a secret, and no container gets one of another."""

import re
import subprocess

import pytest
import yaml

from tests.server import ROOT

pytestmark = pytest.mark.any_database

# Of this server's keys, and of those that people leave in repositories most often.
FORMS = {
    "a key of this server": rb"vdb_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}",
    "a private key": rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
    "a key of OpenAI": rb"\bsk-(?:proj-)?[A-Za-z0-9_-]{32,}",
    "a key of AWS": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub": rb"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})",
    "a token of PyPI": rb"\bpypi-[A-Za-z0-9_-]{50,}",
    "a token of Slack": rb"\bxox[abpr]-[0-9A-Za-z-]{10,}",
    "a token of Hugging Face": rb"\bhf_[A-Za-z0-9]{34,}",
    "a key of Google": rb"\bAIza[0-9A-Za-z_-]{35}\b",
}


def test_no_file_of_the_repository_holds_a_secret() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    names = listed.decode().split("\0")[:-1]
    assert "manage.py" in names
    found = []
    for name in names:
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        for what, form in FORMS.items():
            found += [f"{name} holds {what}: {match[:12]!r}..." for match in re.findall(form, content)]
    assert not found


def test_the_password_of_grafana_reaches_grafana_alone() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    lines = (ROOT / "deploy/full.env").read_text().splitlines()
    # As a person has it, with a password for each.
    in_file = {name: f"${{{name}}}" for name, is_set, _ in (line.partition("=") for line in lines) if is_set}
    assert "GRAFANA_PASSWORD" in in_file
    reached = set()
    for name, service in services.items():
        values = (in_file if "env_file" in service else {}) | service.get("environment", {})
        reached |= {name for value in values.values() if "GRAFANA_PASSWORD" in value}
    assert reached == {"grafana"}
