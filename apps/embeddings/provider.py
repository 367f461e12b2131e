"""The interface of every provider: texts in, vectors out. A provider does not check, retry or wait: `services` does.

A new provider is one module in `providers` and one line in `registry`. To construct one is quick, calls nobody on the
network and loads no model: it may be done just to see whether a name can be used.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, TypeAlias

from apps.embeddings.config import Config
from apps.embeddings.errors import UnknownModel
from apps.embeddings.splitting import estimate_tokens
from apps.engine.vectors import Float32

Kind: TypeAlias = Literal["document", "query"]


class Provider(ABC):
    """One model of one provider. Its methods may be called by several threads at the same time.

    Attributes:
        name: the provider's name in the registry.
        model: the model's name.
        dimension: the vectors' dimension; None until the first result makes it known.
        max_batch: the most texts that `embed` takes at once.
        max_batch_characters: about the most characters that it takes at once, but always one text; None: no limit.
    """

    name: ClassVar[str]
    max_batch: int = 1000
    max_batch_characters: int | None = None

    def __init__(self, model: str, config: Config) -> None:
        """Raise UnknownModel for a name that cannot be a model's, as far as that is known without loading it."""
        if not model.strip():
            raise UnknownModel(self.name, model, "Name one.")
        self.model = model
        self.dimension: int | None = None

    @abstractmethod
    def embed(self, texts: Sequence[str], kind: Kind, timeout: float | None = None) -> Float32:
        """Vectors [n, dimension], float32, of 1 to `max_batch` texts, in their order.

        `kind` is for models that embed documents and queries differently. A reply over the network may take `timeout`
        seconds. Raises ProviderFailed, TextRefused and UnknownModel.
        """

    def count_tokens(self, text: str) -> int:
        """The number of tokens that the model makes of `text`, without those it adds to any text; here, an estimate.

        Raises ProviderFailed and UnknownModel where the model must be loaded for it.
        """
        return estimate_tokens(text)

    def max_tokens(self) -> int | None:
        """The number of these tokens that the model reads of a document's text; None if it is not known.

        Raises as `count_tokens`.
        """
        return None


def batches(texts: Sequence[str], max_texts: int, max_characters: int | None) -> Iterator[Sequence[str]]:
    """`texts` in order, in batches with at most `max_texts` texts and `max_characters`, unless one text is longer."""
    start = characters = 0
    for i, text in enumerate(texts):
        too_long = max_characters is not None and characters + len(text) > max_characters
        if i > start and (too_long or i - start == max_texts):
            yield texts[start:i]
            start, characters = i, 0
        characters += len(text)
    if start < len(texts):
        yield texts[start:]
