"""`manage.py evaluate` on a small library: its measures, its comparison, and what it says of files that are wrong."""

from io import StringIO
from math import log2
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.core.management import CommandError, call_command

from apps.libraries.inputs import DocumentsWrite, LibraryCreate
from apps.libraries.services.documents import create_documents
from apps.libraries.services.libraries import create_library

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "snapshot"])

# Nearest first to [1, 0]: a, b, c, d, e. Of the words, only b and d have "fox".
ROWS = {"a": (1.0, 0.0), "b": (1.0, 0.2), "c": (1.0, 0.5), "d": (1.0, 1.0), "e": (0.2, 1.0)}


@pytest.fixture
def library() -> str:
    create_library(create=LibraryCreate(id="judged", name="Judged", dimension=2))
    documents = [
        {
            "id": f"doc-{name}",
            "chunks": [{"id": name, "embedding": list(vector), "text": "fox" if name in "bd" else "hen"}],
        }
        for name, vector in ROWS.items()
    ]
    create_documents(library_id="judged", write=DocumentsWrite.model_validate({"documents": documents}))
    return "judged"


def write(path: Path, *lines: Any) -> Path:
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else orjson.dumps(line) for line in lines))
    return path


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    return write(
        tmp_path / "judged.jsonl",
        {"id": "first", "text": "fox", "vector": [1, 0], "relevant": {"b": 2, "d": 1, "a": 0}},
        "",
        {"text": "hen", "vector": [0, 1], "relevant": ["e"]},
    )


def evaluate(library: str, path: Path, *options: str) -> tuple[str, str]:
    """The table, and what was said besides."""
    out, err = StringIO(), StringIO()
    call_command("evaluate", library, str(path), *options, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_measures_are_those_of_the_answers(library: str, judged: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    text, said = evaluate(
        library, judged, "--json", str(report), "--measures", "ndcg@10,recall@1,precision@2,map@10,mrr"
    )
    assert said == ""
    assert [line.split()[0] for line in text.splitlines()] == ["ndcg@10", "vector", "lexical", "hybrid"]
    data = orjson.loads(report.read_bytes())
    assert (data["library"], data["count"], list(data["runs"])) == ("judged", 2, ["vector", "lexical", "hybrid"])
    # By vector b is second and d fourth for the first query; for the other one, e is first.
    ideal = 2 + 1 / log2(3)
    first = {
        "ndcg@10": (2 / log2(3) + 1 / log2(5)) / ideal,
        "recall@1": 0,
        "precision@2": 0.5,
        "map@10": (1 / 2 + 2 / 4) / 2,
        "mrr": 0.5,
    }
    second = {"ndcg@10": 1, "recall@1": 1, "precision@2": 0.5, "map@10": 1, "mrr": 1}
    found = data["runs"]["vector"]
    assert found["queries"] == {"first": pytest.approx(first), "3": pytest.approx(second)}
    assert found["measures"] == pytest.approx({name: (first[name] + second[name]) / 2 for name in first})
    assert data["runs"]["lexical"]["queries"]["first"]["ndcg@10"] == 1
    for line, name in zip(text.splitlines()[1:], data["runs"], strict=True):
        assert line.split()[1:] == [f"{value:.4f}" for value in data["runs"][name]["measures"].values()]


def test_options_are_runs_of_their_own(library: str, judged: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    boost = '{"boost": [{"filter": {"@id": {"$in": ["b", "d"]}}, "weight": 5}], "mode": "vector"}'
    arguments = [
        "--mode",
        "lexical",
        "--options",
        'threshold={"score_threshold": 100}',
        "--options",
        f"boosted={boost}",
    ]
    evaluate(library, judged, *arguments, "--json", str(report))
    runs = {name: run["queries"]["first"] for name, run in orjson.loads(report.read_bytes())["runs"].items()}
    assert list(runs) == ["lexical", "lexical, threshold", "vector, boosted"]
    assert [run["ndcg@10"] for run in runs.values()] == [1, 0, 1]


def test_documents_may_be_judged(library: str, tmp_path: Path) -> None:
    path = write(tmp_path / "documents.jsonl", {"vector": [1, 0], "relevant": ["doc-b", "doc-gone", "a"]})
    report = tmp_path / "report.json"
    text, said = evaluate(library, path, "--by", "document", "--measures", "mrr", "--json", str(report))
    assert text.split() == ["mrr", "vector", "0.5000"]
    assert said == "2 relevant ids are not in the library, such as 'a'.\n"


def test_a_report_is_compared_with_an_earlier_one(library: str, judged: Path, tmp_path: Path) -> None:
    good, bad, shorter = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "shorter.jsonl"
    options = ["--mode", "vector", "--measures", "mrr"]
    text, _ = evaluate(library, judged, *options, "--json", str(good))
    assert text.split() == ["mrr", "vector", "0.7500"]
    text, said = evaluate(library, judged, *options, "--compare", str(good), "--max-drop", "0")
    assert (text.split(), said) == (["mrr", "vector", "0.7500", "(+0.0000)"], "")
    write(shorter, judged.read_text().splitlines()[0])
    text, said = evaluate(library, shorter, *options, "--compare", str(good), "--json", str(bad))
    assert text.split() == ["mrr", "vector", "0.5000", "(-0.2500)"]
    assert "other queries" in said
    with pytest.raises(CommandError, match=r"vector: mrr is 0.5000, 0.2500 less than 0.7500") as failed:
        evaluate(library, shorter, *options, "--compare", str(good), "--max-drop", "0.2")
    assert failed.value.returncode == 1
    evaluate(library, shorter, *options, "--compare", str(good), "--max-drop", "0.3")
    text, _ = evaluate(library, judged, "--measures", "mrr,ndcg@10", "--compare", str(bad))
    assert "(-)" in text


def test_what_is_below_a_floor_fails(library: str, judged: Path) -> None:
    evaluate(library, judged, "--fail-below", "vector:ndcg@10=0.8", "--fail-below", "mrr=0.6")
    with pytest.raises(CommandError, match=r"^vector: mrr is 0.7500, below 0.8$"):
        evaluate(library, judged, "--mode", "vector", "--fail-below", "mrr=0.8")
    with pytest.raises(CommandError, match="there is no such run; there are: vector; lexical; hybrid"):
        evaluate(library, judged, "--fail-below", "words:mrr=0.8")
    with pytest.raises(CommandError, match="not among --measures"):
        evaluate(library, judged, "--fail-below", "map@10=0.8")


BAD_LINES: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "Invalid JSON: EOF while parsing an object at column 1$"),
    "no object": ([1], "Input should be an object"),
    "no query": ({"relevant": ["a"]}, "needs a text or a vector"),
    "a blank text": ({"text": " ", "relevant": ["a"]}, "/text must not be blank"),
    "nothing relevant": ({"text": "a"}, "/relevant Field required"),
    "no grade": ({"text": "a", "relevant": {"a": 0}}, "/relevant needs an id with a grade"),
    "a fraction as a grade": ({"text": "a", "relevant": {"a": 0.5}}, "/relevant/a Input should be a valid integer"),
    "an id twice": ({"text": "a", "relevant": ["a", "a"]}, "/relevant must be an object of ids"),
    "an unknown field": ({"query": "a", "relevant": ["a"]}, "/query Extra inputs"),
    "an id of another line": ({"id": "1", "text": "a", "relevant": ["a"]}, "/id repeats '1' of .*bad.jsonl:1"),
    "no text": ({"vector": [1, 0], "relevant": ["a"]}, "mode lexical needs a text"),
    "another dimension": ({"text": "a", "vector": [1], "relevant": ["a"]}, "/vector .*dimension"),
}


@pytest.mark.any_database
@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named(library: str, tmp_path: Path, line: Any, message: str) -> None:
    good = {"text": "fox", "vector": [1, 0], "relevant": ["a"]}
    path = write(tmp_path / "bad.jsonl", good, "", line)
    with pytest.raises(CommandError, match=rf"bad.jsonl:3: {message}"):
        evaluate(library, path, "--mode", "lexical", "--mode", "hybrid")


@pytest.mark.any_database
def test_bad_arguments_are_named(library: str, judged: Path, tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.jsonl", "")
    texts = write(tmp_path / "texts.jsonl", {"text": "fox", "relevant": ["b"]})
    no_report = write(tmp_path / "no.json", {"runs": []})
    for path, options, message in (
        (judged, ["--max-drop", "0.1"], "needs --compare"),
        (judged, ["--measures", "ndcg"], "there is no measure 'ndcg'"),
        (judged, ["--options", "a=1"], "must be a name, = and a JSON object"),
        (judged, ["--options", 'a={"k": 5}'], "/k is set by the evaluation"),
        (judged, ["--options", 'a={"hybrid": {"rrf_k": 0}}'], "/hybrid/rrf_k"),
        (judged, ["--fail-below", "mrr=2"], "from 0 to 1"),
        (judged, ["--compare", str(no_report)], "is no report"),
        (judged, ["--compare", str(tmp_path / "absent.json")], "absent.json cannot be used"),
        (empty, [], "has no judgements"),
        (tmp_path / "absent.jsonl", [], "absent.jsonl cannot be used"),
        (texts, ["--mode", "vector"], "texts.jsonl:1: mode vector needs a vector, since the library has no"),
    ):
        with pytest.raises(CommandError, match=message):
            evaluate(library, path, *options)
    with pytest.raises(CommandError, match="There is no library 'absent'"):
        evaluate("absent", judged)
    assert evaluate(library, texts, "--measures", "mrr")[0].split() == ["mrr", "lexical", "1.0000"]


def test_texts_are_embedded_by_the_librarys_model(tmp_path: Path) -> None:
    create_library(create=LibraryCreate(id="texts", name="Texts"))
    documents = [{"id": text, "chunks": [{"id": text, "text": text}]} for text in ("red fox", "white hen")]
    create_documents(library_id="texts", write=DocumentsWrite.model_validate({"documents": documents}))
    path = write(tmp_path / "texts.jsonl", {"text": "fox", "relevant": ["red fox"]})
    text, _ = evaluate("texts", path, "--measures", "mrr")
    assert text.split() == ["mrr", "vector", "1.0000", "lexical", "1.0000", "hybrid", "1.0000"]
