"""Documents with texts, for a model that counts tokens its own way and reads few of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from apps.embeddings.config import Config
from apps.embeddings.provider import Kind, Provider
from apps.engine.vectors import Float32
from apps.libraries.chunking import split_documents
from apps.libraries.errors import Invalid
from apps.libraries.inputs import DocumentInput

pytestmark = pytest.mark.any_database

WORDS = [f"word{i}" for i in range(100)]


class Words(Provider):
    """A model whose tokens are words, of which it reads 20."""

    name = "words"

    def embed(self, texts: Sequence[str], kind: Kind, timeout: float | None = None) -> Float32:
        return np.ones((len(texts), 1), np.float32)

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def max_tokens(self) -> int | None:
        return 20


def split(*documents: dict[str, Any]) -> list[list[str]]:
    """The texts of the chunks of documents."""
    inputs = [DocumentInput.model_validate(document) for document in documents]
    pointers = [f"/documents/{i}" for i in range(len(inputs))]
    return [
        [chunk.text for chunk in document.chunks]
        for document in split_documents(inputs, pointers, Words("m", Config()))
    ]


def test_pieces_have_what_the_model_reads_by_its_own_count() -> None:
    [found] = split({"text": " ".join(WORDS)})
    # 20 words, of which an eighth are of the piece before.
    assert [piece.split() for piece in found] == [WORDS[start : start + 20] for start in (0, 18, 36, 54, 72)] + [
        WORDS[90:]
    ]
    [found] = split({"text": " ".join(WORDS), "chunking": {"max_tokens": 10, "overlap": 0}})
    assert [piece.split() for piece in found] == [WORDS[start : start + 10] for start in range(0, 100, 10)]
    assert split({"chunks": [{"text": "as it is"}]}, {"text": "short"}) == [["as it is"], ["short"]]


@pytest.mark.parametrize(
    ("chunking", "pointer", "detail"),
    [
        ({"max_tokens": 21}, "/documents/1/chunking/max_tokens", "must be at most 20"),
        ({"overlap": 20}, "/documents/1/chunking/overlap", "must be at most half of max_tokens, which is 20"),
    ],
)
def test_more_than_the_model_reads_is_refused(chunking: dict[str, int], pointer: str, detail: str) -> None:
    with pytest.raises(Invalid) as refused:
        split({"text": "fine"}, {"text": "short", "chunking": chunking})
    [fault] = refused.value.faults
    assert fault.pointer == pointer
    assert fault.detail.startswith(detail)
