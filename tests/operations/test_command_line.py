"""The command line: where the data folder is named, what the help lists, what shells complete."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from apps.control_groups import memory_limits
from apps.operations.management.base import one_sentence_errors
from tests.server import ROOT
from vectordb import __version__, command_line

pytestmark = pytest.mark.any_database


def run(*arguments: str, **options: str) -> str:
    """What `manage.py` prints with these arguments, anywhere but in the checkout."""
    ended = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *arguments], capture_output=True, text=True, check=False, **options
    )
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("arguments", [("--data", "here", "load_sample"), ("load_sample", "--data=here")])
def test_the_data_folder_is_named_before_or_behind_the_command(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert f"no database of a server in {tmp_path / 'here'} yet" in run(*arguments, cwd=str(tmp_path))


@pytest.mark.parametrize("command", ["export x y.zip", "import y.jsonl x", "verify_index", "create_key x --scope read"])
def test_a_folder_without_a_database_is_told_of_in_one_sentence(command: str, tmp_path: Path) -> None:
    """Not as of a server whose files are lost."""
    told = run("--data", "here", *command.split(), cwd=str(tmp_path))
    sentence = f"CommandError: There is no database of a server in {tmp_path / 'here'} yet. Set VECTORDB_DATA_DIR or "
    assert told.startswith(sentence)
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_versions_of_the_program_are_told_without_a_database(tmp_path: Path) -> None:
    told = run("--data", "here", "versions", cwd=str(tmp_path))
    assert re.fullmatch(
        rf"server: {__version__}\nPython: .*\nindex files: format \d+\nbackups: format \d+\n"
        rf"CommandError: There is no database of a server in {tmp_path / 'here'} yet\. .*\n",
        told,
    )


@pytest.mark.parametrize("is_flushed", [True, False])
def test_a_command_whose_output_nobody_reads_on_ends_quietly(
    is_flushed: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As with `| head`: the status is that of a program that SIGPIPE ends."""

    def tell() -> None:
        with one_sentence_errors():
            sys.stdout.write("a job\n")
            if is_flushed:
                sys.stdout.flush()

    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(command_line, "_run", tell)
    with os.fdopen(write, "w") as pipe, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", pipe)
        with pytest.raises(SystemExit) as ended:
            command_line.main()
    assert ended.value.code == 141
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("command", ["versions", "jobs", "shell"])
def test_the_help_of_each_command_shows_how_the_data_folder_is_named(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    utility = command_line._Utility(["vectordb", command])
    utility.fetch_command(command).print_help("vectordb", command)
    assert "--data FOLDER" in capsys.readouterr().out


def test_the_help_begins_with_own_commands_and_the_version_is_ours() -> None:
    assert run("--version") == f"vectordb {__version__}\n"
    own, of_django = run("--help").split("Of Django: ")
    assert "\n  serve            Migrate, load the sample into an empty database, and serve until stopped.\n" in own
    assert "runserver" in of_django
    assert "runserver" not in own


def test_bash_completes_commands_options_and_files(tmp_path: Path) -> None:
    script = tmp_path / "vectordb.bash"
    script.write_text(run("completion", "bash"))
    code = """
    source "$0"
    complete_words() { COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=(); _shtab_vectordb; echo "${COMPREPLY[@]}"; }
    complete_words vectordb verify
    complete_words vectordb verify_index --sam
    """
    ended = subprocess.run(["bash", "-c", code, script], capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["verify_index", "--sample"], ended.stderr


def test_every_optional_requirement_is_an_extra_of_the_package() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]
    own = {"base", "dev", "bench", "model-overrides"}
    files = {file.stem: [f"requirements/{file.name}"] for file in (ROOT / "requirements").glob("*.in")}
    assert extras["requirements_txt"]["optional-dependencies"] == {
        name: file for name, file in files.items() if name not in own
    }


def test_a_container_may_take_what_its_control_groups_allow(tmp_path: Path) -> None:
    groups = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    own = tmp_path / (groups[0] if groups else "/").lstrip("/")
    own.mkdir(parents=True, exist_ok=True)
    (own / "memory.max").write_text("max\n")
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert list(memory_limits(tmp_path)) == [(tmp_path, 1 << 30)]
