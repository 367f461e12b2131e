"""Bodies whose vectors a kernel reads first become the same inputs as bodies that are parsed as a whole."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from apps.api import vector_json
from apps.engine import kernels
from apps.engine.metrics import Metric
from apps.libraries.inputs import ChunksWrite
from apps.libraries.vector_input import parse_vectors
from apps.search.query.spec import QueryBatch
from tests.api.vectors import base64_of

pytestmark = pytest.mark.any_database


@pytest.fixture(autouse=True)
def compiled() -> None:
    kernels.load()


def chunk(number: int, **more: Any) -> dict[str, Any]:
    vector = np.random.default_rng(number).standard_normal(64)
    return {"id": f"c{number}", "text": "t" * 80, "metadata": {"n": number}, "embedding": vector.tolist()} | more


def both(body: str) -> tuple[ChunksWrite, ChunksWrite]:
    """The body as the server parses it, and as pydantic does."""
    assert len(body) > 1 << 14
    return vector_json.validate(body.encode(), ChunksWrite), ChunksWrite.model_validate_json(body)


def matrix(write: ChunksWrite) -> np.ndarray:
    vectors = [chunk.embedding for chunk in write.chunks]
    return parse_vectors(vectors, [""] * len(vectors), dimension=None, metric=Metric.COSINE)


def assert_same(write: ChunksWrite, plain: ChunksWrite) -> None:
    assert np.array_equal(matrix(write), matrix(plain))
    for ours, theirs in zip(write.chunks, plain.chunks, strict=True):
        assert ours.model_fields_set == theirs.model_fields_set
        assert ours.model_dump(exclude={"embedding"}) == theirs.model_dump(exclude={"embedding"})


def were_read(write: ChunksWrite) -> bool:
    return all(isinstance(chunk.embedding, np.ndarray) for chunk in write.chunks)


def test_vectors_are_read_first() -> None:
    write, plain = both(json.dumps({"chunks": [chunk(number) for number in range(40)]}))
    assert were_read(write)
    assert_same(write, plain)


def test_a_mixture_of_arrays_and_base64() -> None:
    vector = np.arange(1, 65, dtype="<f4")
    chunks = [chunk(number) for number in range(20)] + [chunk(99, embedding=base64_of(vector))]
    write, plain = both(json.dumps({"chunks": chunks}))
    assert were_read(write)
    assert_same(write, plain)


@pytest.mark.parametrize(
    "metadata",
    [
        {"embedding": [1, 2, 3]},
        {"deep": [{"embedding": [0.5]}]},
        {"text": '"embedding":[1]'},
        {"embedding": "x"},
        {"embedding": "AAAAAA=="},
    ],
)
def test_metadata_keeps_its_arrays(metadata: dict[str, Any]) -> None:
    write, plain = both(json.dumps({"chunks": [chunk(number, metadata=metadata) for number in range(40)]}))
    assert [one.metadata for one in write.chunks] == [metadata] * 40
    assert_same(write, plain)


@pytest.mark.parametrize(
    "vector", ["[]", "[1,]", "[NaN]", "[1e400]", "[null]", "[[1]]", '["1"]', "[true]", "{}", "5", '"AAA="']
)
def test_a_vector_that_is_wrong_is_refused_as_ever(vector: str) -> None:
    rows = [chunk(number) for number in range(40)]
    body = json.dumps({"chunks": [*rows, chunk(40, embedding="here")]}).replace('"here"', vector)
    found, expected = (
        parsed(vector_json.validate, body),
        parsed(lambda text, model: model.model_validate_json(text), body),
    )
    assert found == expected


def parsed(validate: Callable[[bytes, type[ChunksWrite]], ChunksWrite], body: str) -> Any:
    """The last vector of the body, or what is wrong with it."""
    try:
        return validate(body.encode(), ChunksWrite).chunks[-1].embedding
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)


def test_other_faults_are_found_as_ever() -> None:
    body = json.dumps({"chunks": [chunk(number, colour="red") for number in range(40)]})
    with pytest.raises(ValidationError) as found:
        vector_json.validate(body.encode(), ChunksWrite)
    assert len(found.value.errors()) == 40


def test_a_batch_of_queries() -> None:
    queries = [{"vector": np.random.default_rng(n).standard_normal(64).tolist(), "k": 3} for n in range(40)]
    batch = vector_json.validate(json.dumps({"queries": queries}).encode(), QueryBatch)
    for spec, query in zip(batch.queries, queries, strict=True):
        assert isinstance(spec.vector, np.ndarray)
        assert np.array_equal(spec.vector, np.array(query["vector"], np.float32))
        assert spec.model_fields_set == {"vector", "k"}
