"""Rankings of a library for judged queries: one run for each mode and set of options."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import orjson
from pydantic import ValidationError

from apps.embeddings.services import embed
from apps.libraries import selectors
from apps.libraries.errors import LibraryError
from apps.libraries.models import Chunk, Document, Library
from apps.operations.evaluation.judgements import InvalidJudgements, Judgement
from apps.search.query.service import query_batch
from apps.search.query.spec import QuerySpec

MODES = ("vector", "lexical", "hybrid")
Kind = Literal["chunk", "document"]
_BATCH = 32
_IDS_PER_STATEMENT = 1000
# What the evaluation itself says of a query.
_FIXED = ("vector", "text", "chunk_id", "k", "offset", "include", "profile", "embedding")


class InvalidOptions(Exception):
    """A set of options that no query can have."""


class Run(NamedTuple):
    """A way to ask: `options` are fields of a query."""

    name: str
    mode: str
    options: Mapping[str, Any]


def plan_runs(modes: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> list[Run]:
    """A run for each of `modes` without options, and with each set of `options`, by name; a set that has a mode of its
    own makes one run. Raises InvalidOptions."""
    for name, fields in options.items():
        if fixed := [field for field in fields if field in _FIXED]:
            raise InvalidOptions(f"{name}: /{fixed[0]} is set by the evaluation; leave it out")
    plain = [Run(mode, mode, {}) for mode in modes]
    return plain + [
        Run(f"{mode}, {name}", mode, fields)
        for name, fields in options.items()
        for mode in ([fields["mode"]] if "mode" in fields else modes)
    ]


def possible_modes(library_id: str, judgements: Sequence[Judgement]) -> list[str]:
    """The modes in which all queries can be asked. Raises NotFound."""
    library = selectors.library_row(library_id)
    have_texts = all(one.text is not None for one in judgements)
    have_vectors = all(_has_vector(library, one) for one in judgements)
    needs = {"vector": have_vectors, "lexical": have_texts, "hybrid": have_texts and have_vectors}
    return [mode for mode in MODES if needs[mode]]


def check_mode(library_id: str, judgements: Sequence[Judgement], mode: str) -> None:
    """Raise InvalidJudgements, which names the first query that cannot be asked in a mode."""
    library = selectors.library_row(library_id)
    for one in judgements:
        if mode != "vector" and one.text is None:
            raise InvalidJudgements(f"{one.place}: mode {mode} needs a text")
        if mode != "lexical" and not _has_vector(library, one):
            raise InvalidJudgements(
                f"{one.place}: mode {mode} needs a vector, since the library has no embedding model"
            )


def embed_queries(library_id: str, judgements: Sequence[Judgement]) -> list[Judgement]:
    """The judgements, with vectors of texts by the library's model where they have none: texts are embedded once for
    all runs. Raises NotFound, and what the provider raises."""
    library = selectors.library_row(library_id)
    missing = [one.text for one in judgements if one.vector is None and one.text is not None]
    if library.embedding is None or not missing:
        return list(judgements)
    vectors = iter(embed(*library.embedding, missing, "query").tolist())
    return [
        one._replace(vector=next(vectors)) if one.vector is None and one.text is not None else one for one in judgements
    ]


def unknown_ids(library_id: str, judgements: Sequence[Judgement], kind: Kind) -> list[str]:
    """The relevant ids that the library does not have."""
    ids = sorted({name for one in judgements for name, grade in one.grades.items() if grade})
    model: type[Chunk | Document] = Chunk if kind == "chunk" else Document
    known: set[str] = set()
    for start in range(0, len(ids), _IDS_PER_STATEMENT):
        some = ids[start : start + _IDS_PER_STATEMENT]
        # In the models' order, the database would walk through all rows of the library.
        rows = model._default_manager.filter(library__public_id=library_id, public_id__in=some).order_by()
        known.update(rows.values_list("public_id", flat=True))
    return [name for name in ids if name not in known]


def rank(library_id: str, judgements: Sequence[Judgement], run: Run, depth: int, kind: Kind) -> Iterator[list[str]]:
    """The ids found for each query, best first, at most `depth`. Raises InvalidOptions, InvalidJudgements, and what
    queries raise."""
    for start in range(0, len(judgements), _BATCH):
        some = judgements[start : start + _BATCH]
        specs = [_spec(one, run, depth, kind) for one in some]
        try:
            answers = query_batch(library_id=library_id, specs=specs)
        except LibraryError as error:
            raise _located(error, some) from error
        for answer in answers:
            yield [_id_of(result, kind) for result in answer["results"]]


def _id_of(result: Mapping[str, Any], kind: Kind) -> str:
    """The id that judgements name; of a chunk without document one that no document has."""
    found: str = result["id"] if kind == "chunk" else result["document_id"] or f"\n{result['id']}"
    return found


def _has_vector(library: Library, judgement: Judgement) -> bool:
    return judgement.vector is not None or (judgement.text is not None and library.embedding is not None)


def _spec(judgement: Judgement, run: Run, depth: int, kind: Kind) -> QuerySpec:
    fields: dict[str, Any] = {"mode": run.mode, "k": depth, "include": []}
    if kind == "document":
        fields["group_by"] = "document"
    if run.mode != "vector":
        fields["text"] = judgement.text
    if run.mode != "lexical":
        fields["vector"] = judgement.vector
    try:
        return QuerySpec.model_validate_json(orjson.dumps(fields | dict(run.options)))
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(map(str, (*first["loc"], *first.get("ctx", {}).get("path", ()))))
        raise InvalidOptions(f"{run.name}: /{where} {first['msg']}") from None


def _located(error: LibraryError, judgements: Sequence[Judgement]) -> Exception:
    """The error with the place of the query that it is about, if it is about one."""
    for fault in error.faults:
        _, _, rest = fault.pointer.partition("/queries/")
        number, _, field = rest.partition("/")
        if number.isdecimal():
            return InvalidJudgements(f"{judgements[int(number)].place}: /{field} {fault.detail}")
    return error
