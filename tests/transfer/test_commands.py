"""`manage.py export` and `manage.py import`."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from apps.libraries.inputs import LibraryCreate
from apps.libraries.models import Chunk, Document
from apps.libraries.services.libraries import create_library
from apps.transfer import rows
from apps.transfer.command_jobs import sole_runner
from apps.transfer.models import Job
from tests.transfer.libraries import content, make_library

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])


def test_a_library_goes_out_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_library()
    for format in ("jsonl", "zip", "parquet"):
        file = tmp_path / f"a.{format}"
        call_command("export", "a", str(file))
        # In Parquet a document is beside its chunks.
        assert f"a: {11 if format == 'parquet' else 12} rows" in capsys.readouterr().out
        with pytest.raises(CommandError, match=r"exists\. Name another file, or replace it by --force"):
            call_command("export", "a", str(file))
        call_command("import", str(file), f"b-{format}", "--create")
        assert "10 chunks created, 0 updated, 0 left, 2 documents written, 0 rows refused" in capsys.readouterr().out
        assert content(f"b-{format}") == content("a")
    assert [job.state for job in Job.objects.all()] == ["done"] * 3
    with pytest.raises(CommandError, match="There is no library 'absent'"):
        call_command("export", "absent", str(tmp_path / "x.zip"))
    # Nothing half-written is left.
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "a.zip", "a.parquet"}


def test_the_same_command_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create_library(create=LibraryCreate(id="a", name="A", dimension=2))
    file = tmp_path / "rows.jsonl"
    # Without ids: each row that was stored twice would be there twice.
    lines = [json.dumps({"text": f"t{i}", "embedding": [i, 1] if i != 5 else [1]}) for i in range(10)]
    file.write_text("\n".join(lines))
    monkeypatch.setattr(rows, "ROWS_PER_BATCH", 3)
    seen = 0

    def interrupt(*args: Any, **kwargs: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tqdm.tqdm.update", interrupt)
        with pytest.raises(CommandError, match="The same command goes on with the rest") as interrupted:
            call_command("import", str(file), "a")
    assert interrupted.value.returncode == 130
    assert Chunk.objects.count() == 8

    def run_beside() -> None:
        try:
            call_command("import", str(file), "a")
        finally:
            connections.close_all()

    refused = pytest.raises(CommandError, match="Another command runs the job import")
    with sole_runner(Job.objects.get()), ThreadPoolExecutor(1) as pool, refused:
        pool.submit(run_beside).result()
    assert Chunk.objects.count() == 8
    with pytest.raises(CommandError, match="1 rows were refused"):
        call_command("import", str(file), "a")
    out = capsys.readouterr().out
    assert "9 chunks created" in out
    assert "line 6: /embedding has 1 components, but the library's dimension is 2" in out
    assert sorted(Chunk.objects.values_list("text", flat=True)) == [f"t{i}" for i in range(10) if i != 5]
    job = Job.objects.get()
    assert (job.state, job.done, job.result["refused"]) == ("done", file.stat().st_size, 1)


def test_files_of_a_folder_are_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embedding: Any = {"provider": "hashing", "model": "hashing-64"}
    create_library(create=LibraryCreate(id="a", name="A", embedding=embedding))
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    (folder / "plain.txt").write_text("Cats sleep most of the day.")
    (folder / "sub" / "page.md").write_text("# A page\n\nDogs bark at cats.")
    paragraph = "A long paragraph about birds, which sing in the morning, and about nothing else at all. " * 5
    (folder / "site.html").write_text(
        f"<html><head><title>Birds</title></head><body><nav>Home | Login</nav><article><h1>Birds</h1><p>{paragraph}</p>"
        "</article></body></html>"
    )
    (folder / "latin.txt").write_bytes(b"\xe9t\xe9")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (folder / "paper.pdf").write_bytes(pdf("Fish swim"))
    (folder / ".hidden.txt").write_text("hidden")
    (folder / "link.txt").symlink_to("/etc/hostname")
    with pytest.raises(CommandError, match="2 rows were refused"):
        call_command("import", str(folder), "a")
    out = capsys.readouterr().out
    assert "latin.txt: is no text in UTF-8" in out
    assert "broken.pdf: cannot be read as PDF" in out
    documents = {row.public_id: row for row in Document.objects.all()}
    assert documents.keys() == {"plain.txt", "sub/page.md", "site.html", "paper.pdf"}
    assert (documents["sub/page.md"].title, documents["site.html"].title) == ("A page", "Birds")
    texts = dict(Chunk.objects.filter(position=0).values_list("document__public_id", "text"))
    assert "Fish swim" in texts["paper.pdf"]
    assert "birds" in texts["site.html"]
    assert "Login" not in texts["site.html"]
    before = set(Chunk.objects.values_list("pk", flat=True))
    (folder / "latin.txt").unlink()
    (folder / "broken.pdf").unlink()
    call_command("import", str(folder), "a")
    assert "0 chunks created, 0 updated" in capsys.readouterr().out
    assert set(Chunk.objects.values_list("pk", flat=True)) == before


def pdf(text: str) -> bytes:
    """A file of one page that says a text."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, what in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, what)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 6\n0000000000 65535 f \n%btrailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return bytes(out) + end % (table, len(out))
