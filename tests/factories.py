"""Rows made through the ORM, for what is not written by a service."""

from typing import Any

import factory
import numpy as np
from factory.django import DjangoModelFactory

from apps.engine.vectors import DTYPE
from apps.libraries.models import Chunk, Document, Embedding, Library


class LibraryFactory(DjangoModelFactory[Library]):
    """An empty library of dimension 3 under cosine."""

    public_id = factory.Sequence(lambda n: f"library-{n}")
    name = factory.Faker("catch_phrase")
    dimension = 3

    class Meta:
        model = Library


class DocumentFactory(DjangoModelFactory[Document]):
    """A document without chunks."""

    library = factory.SubFactory(LibraryFactory)
    public_id = factory.Sequence(lambda n: f"document-{n}")
    title = factory.Faker("sentence")

    class Meta:
        model = Document


class ChunkFactory(DjangoModelFactory[Chunk]):
    """A chunk with an embedding; `vector` names its components."""

    library = factory.SubFactory(LibraryFactory)
    public_id = factory.Sequence(lambda n: f"chunk-{n}")
    text = factory.Faker("sentence")
    metadata = factory.LazyFunction(lambda: {"kind": "made"})

    class Meta:
        model = Chunk
        skip_postgeneration_save = True

    @factory.post_generation
    def vector(self, create: bool, extracted: Any, **kwargs: Any) -> None:
        components = [1.0, 0.0, 0.0] if extracted is None else extracted
        blob = np.array(components, DTYPE).tobytes()
        Embedding.objects.create(chunk=self, generation=self.library.generation, vector=blob)
