"""The interface of every provider: texts in, vectors out. A provider does not check, repeat or wait: `services` does.

A new provider is one module in `providers` and one line in `registry`. Its package is imported at the top of the
module, which is itself imported when the provider is first asked for. Making a provider is quick, calls nobody on the
network and loads no model: it may be done just to see whether a name can be used at all.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, TypeAlias

from apps.embeddings.config import Config
from apps.embeddings.errors import UnknownModel
from apps.embeddings.tokens import estimated_tokens
from apps.engine.vectors import Float32

Kind: TypeAlias = Literal["document", "query"]


class Provider(ABC):
    """One model of one provider. Its methods may be called by several threads at the same time.

    Attributes:
        name: the provider's name in the registry.
        model: the model's name.
        dimension: the vectors' dimension; None until it is known. The first answer makes it known.
        max_batch: most texts that `embed` takes at once.
        max_batch_characters: about how many characters `embed` takes at once, but always one text; None: any number.
    """

    name: ClassVar[str]
    max_batch: int = 1000
    max_batch_characters: int | None = None

    def __init__(self, model: str, config: Config) -> None:
        """Raises UnknownModel for a name that cannot be one of a model, as far as that is known without loading it."""
        if not model.strip():
            raise UnknownModel(self.name, model, "Name one.")
        self.model = model
        self.dimension: int | None = None

    @abstractmethod
    def embed(self, texts: Sequence[str], kind: Kind, timeout: float | None = None) -> Float32:
        """Vectors [n, dimension], float32, of 1 to `max_batch` texts, in their order.

        `kind` says what the texts are, for models that tell documents from what is asked about them. An answer over
        the network may take `timeout` seconds. Raises ProviderFailed, TextRefused and UnknownModel.
        """

    def count_tokens(self, text: str) -> int:
        """How many tokens the model makes of `text`, without those it adds to any text; here, an estimate.

        Raises ProviderFailed and UnknownModel where the model must be loaded for it.
        """
        return estimated_tokens(text)

    def most_tokens(self) -> int | None:
        """The most of these tokens that the model reads of a document's text; None where that is not known.

        Raises as `count_tokens`.
        """
        return None


def batches(texts: Sequence[str], most: int, characters: int | None) -> Iterator[Sequence[str]]:
    """`texts` in order, in runs of at most `most`, and of at most `characters` unless a single text is longer."""
    start = held = 0
    for i, text in enumerate(texts):
        if i > start and (i - start == most or (characters is not None and held + len(text) > characters)):
            yield texts[start:i]
            start, held = i, 0
        held += len(text)
    if start < len(texts):
        yield texts[start:]
