"""Hashed words and parts of words: vectors without a model or a network.

The features of a word (NFKC, case folded) are its runs of 4 to 6 characters, where "<" and ">" mark its ends, or all of
it if it is shorter; 2 and 3 in scripts that put no spaces between words. Each adds 1 to one element of the vector or
subtracts it, by its hash (Weinberger et al., Feature Hashing for Large Scale Multitask Learning, arXiv:0902.2186),
times 1 + ln n for a word that occurs n times. Vectors are scaled to unit length.

What always holds: equal texts have equal vectors, bit by bit, in any process and on any machine whose Unicode tables
agree. All sums are of whole numbers below 2**53, exact in any order; one square root and one division follow.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import xxhash
from numpy.typing import NDArray

from apps.embeddings.config import Config
from apps.embeddings.errors import UnknownModel
from apps.embeddings.provider import Kind, Provider
from apps.engine.vectors import Float32

_MODEL = re.compile(r"hashing-([1-9][0-9]{1,3})")
MIN_DIMENSION, MAX_DIMENSION = 64, 4096

# A run that goes on for longer is cut: scripts without spaces make long ones, and so does base64.
_LONGEST_WORD = 64
# Marks are letters here, or the words of some scripts would fall apart: they write vowels with them.
_WORD = re.compile(rf"[\w\u0300-\u036f\u0591-\u05bd\u0610-\u065f\u0900-\u0eff]{{1,{_LONGEST_WORD}}}")
_SIZES, _SIZES_WITHOUT_SPACES = (4, 5, 6), (2, 3)
# From here on, Unicode has the scripts of China, Japan and Korea.
_WITHOUT_SPACES = "\u2e80"
# Of 1 + ln n, n from 0. Counts beyond are as the last.
_COUNT_WEIGHTS = np.array([0] + [round(64 * (1 + math.log(n))) for n in range(1, 1024)], np.float64)
_SEED = 0x5EED
_KEPT_WORDS = 1 << 16
_BATCH_ELEMENTS = 1 << 19


class Hashing(Provider):
    """Models are named after their dimension: hashing-64 to hashing-4096."""

    name = "hashing"
    max_batch_characters = 1 << 18

    def __init__(self, model: str, config: Config) -> None:
        named = _MODEL.fullmatch(model)
        dimension = int(named[1]) if named else 0
        if not MIN_DIMENSION <= dimension <= MAX_DIMENSION:
            remedy = (
                f"There are hashing-{MIN_DIMENSION} to hashing-{MAX_DIMENSION}; the number is the dimension, 384 for "
                "example."
            )
            raise UnknownModel(self.name, model, remedy)
        super().__init__(model, config)
        self.dimension: int = dimension
        self.max_batch = _BATCH_ELEMENTS // dimension

    def embed(self, texts: Sequence[str], kind: Kind, timeout: float | None = None) -> Float32:
        """Vectors [n, dimension]; documents and queries are treated alike."""
        return _vectors(texts, self.dimension).astype(np.float32)


def words(text: str) -> list[str]:
    """The words of a text, in order, at least one."""
    text = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(text.replace("_", " ")) or [text.strip()[:_LONGEST_WORD]]


@lru_cache(_KEPT_WORDS)
def _features(word: str) -> bytes:
    """The 64-bit hashes of a word's features, one or more. Bytes are the smallest thing to keep, and to join."""
    has_spaces = word < _WITHOUT_SPACES
    marked = f"<{word}>" if has_spaces else word
    sizes = _SIZES if has_spaces else _SIZES_WITHOUT_SPACES
    runs = [marked[i : i + size] for size in sizes for i in range(len(marked) - size + 1)]
    return b"".join(
        xxhash.xxh3_64_intdigest(run.encode("utf-8", "surrogatepass"), _SEED).to_bytes(8, "little")
        for run in runs or [marked]
    )


def _vectors(texts: Sequence[str], dimension: int) -> NDArray[np.float64]:
    parts: list[bytes] = []
    counts: list[int] = []
    distinct: list[int] = []
    for text in texts:
        found = Counter(words(text))
        parts.extend(map(_features, found))
        counts.extend(found.values())
        distinct.append(len(found))

    hashes = np.frombuffer(b"".join(parts), "<u8")
    sizes = np.fromiter(map(len, parts), np.int64, len(parts)) // 8
    weights = np.repeat(_COUNT_WEIGHTS[np.minimum(counts, len(_COUNT_WEIGHTS) - 1)], sizes)
    np.negative(weights, out=weights, where=(hashes & np.uint64(1)).astype(np.bool_))

    rows = np.repeat(np.repeat(np.arange(len(texts)), distinct), sizes)
    elements = rows * dimension + ((hashes >> np.uint64(1)) % np.uint64(dimension)).astype(np.int64)
    sums = np.asarray(np.bincount(elements, weights, len(texts) * dimension), np.float64).reshape(-1, dimension)

    squares = (sums * sums).sum(axis=1)
    for row in np.flatnonzero(squares == 0).tolist():
        # All features of the text cancel: very few words, of one character each. Any fixed vector will do.
        sums[row, len(texts[row]) % dimension] = squares[row] = 1
    sums /= np.sqrt(squares)[:, np.newaxis]
    return sums
