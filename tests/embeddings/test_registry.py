"""Providers by name: one for each model and process, refusals that say what there is, remedies for what is missing."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from apps.embeddings import registry
from apps.embeddings.config import Config
from apps.embeddings.errors import EmbeddingError, NotInstalled, UnknownModel, UnknownProvider
from apps.embeddings.registry import PROVIDERS, install_command, provider, provider_type
from apps.embeddings.services import embed

ROOT = Path(__file__).parents[2]
ANSWERED = 42
OPTIONAL = [name for name in PROVIDERS if name not in ("wordllama", "hashing")]


def test_a_provider_is_made_once() -> None:
    first = provider("hashing", "hashing-64")
    assert (first.name, first.model, first.dimension) == ("hashing", "hashing-64", 64)
    assert provider("hashing", "hashing-64") is first
    assert provider("hashing", "hashing-65") is not first


def test_other_settings_make_another_one(configure: Callable[..., Config]) -> None:
    first = provider("hashing", "hashing-64")
    configure(timeout=1)
    assert provider("hashing", "hashing-64") is not first


def test_models_that_requests_name_do_not_pile_up() -> None:
    for dimension in range(64, 264):
        provider("hashing", f"hashing-{dimension}")
    assert registry._make.cache_info().currsize <= 32


def test_an_unknown_provider_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownProvider) as refused:
        provider("hashin", "x")
    assert str(refused.value) == (
        "'hashin' is not an embedding provider; there are: wordllama, hashing, sentence_transformers, openai, cohere."
    )
    assert isinstance(refused.value, EmbeddingError)


def test_an_unknown_model_is_refused_again_and_again() -> None:
    for _ in range(2):
        with pytest.raises(UnknownModel):
            provider("hashing", "hashing-1")


@pytest.mark.parametrize("name", ["wordllama", *OPTIONAL])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None here makes Python's own import say that there is no such module, whether or not it is installed.
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"apps.embeddings.providers.{name}", raising=False)
    with pytest.raises(NotInstalled) as missing:
        provider(name, "some-model")
    assert missing.value.package == name
    assert f"needs the Python package {name}" in str(missing.value)
    assert str(missing.value).endswith(missing.value.command)


@pytest.mark.parametrize("name", ["openai", "cohere"])
def test_the_command_installs_a_file_that_is_there_and_names_the_package(name: str) -> None:
    *_, hashes, option, file = install_command(name).split()
    assert (hashes, option) == ("--require-hashes", "-r")
    pinned = (ROOT / file).read_text()
    assert re.search(rf"^{name.replace('_', '-')}==\S+ \\\n    --hash=sha256:", pinned, re.MULTILINE)


@pytest.mark.parametrize(
    "file", sorted(file for file in ROOT.glob("requirements/*.txt") if file.stem not in ("base", "dev", "bench"))
)
def test_what_is_installed_leaves_the_server_what_it_has(file: Path) -> None:
    def pins(file: Path) -> set[str]:
        return set(re.findall(r"^[a-z]\S+==\S+", file.read_text(), re.MULTILINE))

    base = pins(ROOT / "requirements/base.txt")
    assert base
    assert base <= pins(file)


def test_a_fault_of_our_own_module_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.PROVIDERS, "gone", "Gone")
    with pytest.raises(ModuleNotFoundError, match="gone"):
        provider_type("gone")


def test_no_provider_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, apps.embeddings.services; print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"openai", "cohere", "torch", "tokenizers", "wordllama", "apps.embeddings.providers.hashing"} & set(
        said.stdout.split()
    )


def test_a_forked_child_has_providers_of_its_own_and_does_not_hang() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "tests.embeddings.test_registry"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == ANSWERED, said.stderr


def _fork_while_locks_are_held() -> int:
    """A child of a process whose lock another thread holds embeds as before; return its exit status."""
    django_settings.configure(EMBEDDINGS=Config())
    embed("hashing", "hashing-64", ["text"], "query")
    before = provider("hashing", "hashing-64")
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with registry._lock:
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        same = embed("hashing", "hashing-64", ["text"], "query").shape == (1, 64)
        os._exit(ANSWERED if same and provider("hashing", "hashing-64") is not before else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    over.set()
    thread.join()
    return status


if __name__ == "__main__":
    sys.exit(_fork_while_locks_are_held())
