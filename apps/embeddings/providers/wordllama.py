"""Static embeddings of word pieces: a text's vector is the mean of its tokens' vectors, from the files of a package.

Texts are near one another that are about the same, in English foremost: "car" is near "automobile". The order of words
does not count, and a long text that is about many things is near none of them. The tokens' vectors are from the table
of a large language model, trained further for the similarity of sentences (https://github.com/dleemiller/WordLlama,
MIT); common tokens have shorter ones, so "of" counts for less than "automobile".

What always holds: equal texts have equal vectors, bit by bit, alone or in a batch. All vectors have unit length.

The table is mapped, so processes share it (16 MB). The tokenizer takes some 15 MB and 0.2 s to load; forked processes
share it where it was loaded before. It runs no threads of its own, which a fork would lose.

Costs some 60 microseconds for 20 words, a text of 256 KiB at most 0.5 s.
"""

import importlib.util
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

# Read at each call of the tokenizer.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer

from apps.embeddings.config import Config
from apps.embeddings.errors import UnknownModel
from apps.embeddings.provider import Kind, Provider
from apps.engine.vectors import Float32

MODEL = "l2-supercat-256"
_TOKENS_AT_ONCE = 4096
# <unk>, for a text of no tokens.
_UNKNOWN = [0]

# The package itself is not imported: it configures the root logger and compiles nothing that is needed here.
_package = importlib.util.find_spec("wordllama")
if _package is None or not _package.submodule_search_locations:
    raise ModuleNotFoundError("No module named 'wordllama'", name="wordllama")
_FOLDER = Path(_package.submodule_search_locations[0])


class WordLlama(Provider):
    """The one model that the package brings, l2-supercat-256: 32,000 tokens, 256 dimensions."""

    name = "wordllama"
    max_batch_characters = 1 << 18

    def __init__(self, model: str, config: Config) -> None:
        if model != MODEL:
            raise UnknownModel(self.name, model, f"There is {MODEL}.")
        super().__init__(model, config)
        self.dimension = 256

    def embed(self, texts: Sequence[str], kind: Kind, timeout: float | None = None) -> Float32:
        """Vectors [n, 256]; documents and queries are treated alike."""
        tokenizer, table = load()
        vectors = np.zeros((len(texts), table.shape[1]), np.float32)
        encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        for total, encoding in zip(vectors, encodings, strict=True):
            tokens = encoding.ids or _UNKNOWN
            for start in range(0, len(tokens), _TOKENS_AT_ONCE):
                part = table.take(tokens[start : start + _TOKENS_AT_ONCE], axis=0)
                total += part.astype(np.float32).sum(axis=0)
        vectors /= np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
        return vectors


@lru_cache(maxsize=1)
def load() -> tuple[Tokenizer, NDArray[np.float16]]:
    """The tokenizer, and the vectors of its tokens [tokens, dimension]."""
    tokenizer = Tokenizer.from_file(str(_FOLDER / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    # It keeps the results of whole texts, as this model does not cut them into words before.
    tokenizer.model._resize_cache(0)
    return tokenizer, _map_table(_FOLDER / "weights" / "l2_supercat_256.safetensors")


def _map_table(path: Path) -> NDArray[np.float16]:
    """The only tensor of a safetensors file; the library safetensors would copy it into memory.

    The file has the size of a header in 8 bytes, the header in JSON, and then the numbers.
    https://huggingface.co/docs/safetensors
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        (tensor,) = orjson.loads(file.read(size)).values()
    if tensor["dtype"] != "F16":
        raise ValueError(f"{path} has numbers of type {tensor['dtype']}, not F16")
    offset = 8 + size + tensor["data_offsets"][0]
    return np.asarray(np.memmap(path, "<f2", "r", offset, tuple(tensor["shape"])))
