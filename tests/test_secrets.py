"""No file of the repository holds a secret."""

import re
import subprocess

import pytest

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
