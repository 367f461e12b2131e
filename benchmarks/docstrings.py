"""Ask 40 questions, written by hand, over the docstrings of Python's library: is the module found that answers each?

`python -m benchmarks.docstrings` needs no data: the texts are those of the Python that runs it. After `make model`, its
model is measured too. Each public module is a document of its docstrings, split as the server splits texts; a query
finds chunks, and counts as right where the first of its modules, or one of the first three, is the one that the
question is about. The searches are the server's own, exact and without HTTP.
"""

import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import orjson

from benchmarks.report import machine, sentence

_QUESTIONS = Path(__file__).with_name("docstring_questions.json")
_MODELS = [("hashing", "hashing-384"), ("wordllama", "l2-supercat-256")]
# They print, open a browser or a window, or are there for tests.
_LEFT_OUT = {"antigravity", "this", "idlelib", "turtle", "turtledemo", "lib2to3"}
_CHUNKS = 100


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vectordb.settings")

    import django

    django.setup()

    from apps.embeddings.config import DEFAULT_MODELS, PACKAGED_MODEL, has_package
    from apps.embeddings.services import embed
    from apps.engine import kernels
    from benchmarks.retrieval import search

    kernels.load()
    questions = orjson.loads(_QUESTIONS.read_bytes())
    texts = [text for text, _ in questions]
    chunks = [(module, chunk) for module, text in docstrings() for chunk in _split(text)]
    if missing := {right for _, right in questions} - {module for module, _ in chunks}:
        sys.exit(f"There are no docstrings of: {missing}")

    modules = np.array([module for module, _ in chunks])
    found: dict[str, list[list[int]]] = {}
    models = list(_MODELS)
    if has_package(PACKAGED_MODEL):
        models.append(("sentence_transformers", DEFAULT_MODELS["sentence_transformers"]))
    for model in models:
        vectors = embed(*model, [text for _, text in chunks], "document")
        answers = search([text for _, text in chunks], vectors, texts, embed(*model, texts, "query"), k=_CHUNKS)
        found["words"] = answers["lexical"]
        found[model[1]] = answers["vector"]
        found[f"hybrid, words and {model[1]}"] = answers["hybrid"]

    print(f"{sentence(machine(Path.cwd()) | {'command': 'python -m benchmarks.docstrings'})}\n")
    print(f"{len(texts)} questions, {len({module for module, _ in chunks})} modules, {len(chunks):,} chunks\n")
    print("| found by | hit@1 | hit@3 |\n|---|--:|--:|")
    for name, answers_of in found.items():
        ranks = [_rank(modules[rows], right) for rows, (_, right) in zip(answers_of, questions, strict=True)]
        print(f"| {name} | {sum(rank == 0 for rank in ranks)} | {sum(rank < 3 for rank in ranks)} |")


def docstrings() -> Iterator[tuple[str, str]]:
    """The public modules of the standard library that can be imported here, each with all its docstrings."""
    warnings.simplefilter("ignore")
    for name in sorted(sys.stdlib_module_names - _LEFT_OUT):
        if name.startswith("_"):
            continue
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        own = (key for key, member in vars(module).items() if getattr(member, "__module__", None) in (name, f"_{name}"))
        members = (
            (key, getattr(module, key, None)) for key in sorted(getattr(module, "__all__", own)) if key[0] != "_"
        )
        texts = [f"{key}: {text}" for key, member in members if member and (text := inspect.getdoc(member))]
        if head := inspect.getdoc(module):
            texts.insert(0, f"{name}: {head}")
        if texts:
            yield name, "\n\n".join(texts)


def _split(text: str) -> list[str]:
    from apps.embeddings.splitting import estimate_tokens, split_text

    return split_text(
        text, count_tokens=estimate_tokens, max_tokens=256, overlap=32, max_chunks=10_000, max_characters=1 << 18
    )


def _rank(modules: Iterable[str], right: str) -> int:
    """The place of `right` among the different ones of `modules`, from 0; 3 for the fourth and all beyond."""
    first = list(islice(dict.fromkeys(modules), 3))
    return first.index(right) if right in first else 3


if __name__ == "__main__":
    # A language model takes minutes.
    os.environ |= {"VECTORDB_REQUEST_TIMEOUT": "3600", "VECTORDB_EMBEDDING_TIMEOUT": "3599"}
    main()
