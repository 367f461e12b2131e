"""The tables. Everything a search answers from is derived from these rows.

String ids (`public_id`) are what clients see; integer keys stay inside. Rows that belong to a deleted row are deleted
by triggers (`dialects`), not by Django, which would load every text and blob of a library to delete it: so all foreign
keys say DO_NOTHING, and whoever deletes, with whatever tool, leaves no orphan.
"""

import secrets
from typing import Any, NamedTuple

import orjson
from django.db import models
from django.db.models.functions import Length
from django.db.models.lookups import Exact, GreaterThan
from django.utils import timezone

from apps.engine.metrics import Metric

ID_MAX_LENGTH = 128
NAME_MAX_LENGTH = 200
EMBEDDING_MODEL_MAX_LENGTH = 500


def new_uid() -> str:
    """Return a random name for files derived from a library, so that a re-created library never meets old ones."""
    return secrets.token_hex(16)


class ExactJSONField(models.JSONField):
    """JSON that is stored as it was written: `json` on PostgreSQL, as `jsonb` writes 1e300 with 301 digits."""

    def db_type(self, connection: Any) -> str | None:
        return "json" if connection.vendor == "postgresql" else super().db_type(connection)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if connection.vendor == "postgresql" and value is not None and not hasattr(value, "as_sql"):
            return orjson.dumps(value).decode()
        return super().get_db_prep_value(value, connection, prepared)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return super().from_db_value(value, expression, connection) if isinstance(value, str) else value


class EmbeddingModel(NamedTuple):
    """A model that makes vectors of texts, and the provider that has it (`apps.embeddings`)."""

    provider: str
    model: str


class KnownModel(NamedTuple):
    """An embedding model, and the dimension of its vectors where that is known before it makes any."""

    key: EmbeddingModel
    dimension: int | None


class Library(models.Model):
    """A named set of chunks whose embeddings have one dimension and are compared by one metric."""

    public_id = models.CharField("id", max_length=ID_MAX_LENGTH, unique=True)
    uid = models.CharField(max_length=32, default=new_uid, unique=True, editable=False)
    name = models.CharField(max_length=NAME_MAX_LENGTH)
    description = models.TextField(blank=True, default="")
    dimension = models.PositiveIntegerField(null=True, blank=True)
    metric = models.CharField(
        max_length=16, choices=[(metric.value, metric.value) for metric in Metric], default=Metric.COSINE.value
    )
    index_type = models.CharField(max_length=32, default="auto")
    index_params = ExactJSONField(default=dict, blank=True)
    # Which model makes vectors of texts; both empty where none does.
    embedding_provider = models.CharField(max_length=64, blank=True, default="", editable=False)
    embedding_model = models.CharField(max_length=EMBEDDING_MODEL_MAX_LENGTH, blank=True, default="", editable=False)
    metadata = ExactJSONField(default=dict, blank=True)
    # The paths of metadata that no filter looks at.
    unindexed = ExactJSONField(default=list, blank=True, editable=False)
    generation = models.PositiveIntegerField(default=1, editable=False)
    # The number of the newest manifest of the library, and how often a rebuild of its index was requested.
    manifest = models.BigIntegerField(default=0, editable=False)
    rebuild = models.BigIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "vectordb_library"
        ordering = ["id"]
        verbose_name_plural = "libraries"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(dimension__isnull=True) | models.Q(dimension__gte=1),
                name="vectordb_library_dimension",
            ),
            models.CheckConstraint(
                condition=models.Q(metric__in=[metric.value for metric in Metric]), name="vectordb_library_metric"
            ),
            models.CheckConstraint(
                condition=~models.Q(name="") & ~models.Q(public_id=""), name="vectordb_library_named"
            ),
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def embedding(self) -> EmbeddingModel | None:
        """The model that makes vectors of texts."""
        return EmbeddingModel(self.embedding_provider, self.embedding_model) if self.embedding_provider else None

    @property
    def takes_model(self) -> bool:
        """Whether a model becomes the library's with the first text: it has none, and no dimension either."""
        return self.embedding is None and self.dimension is None


class Document(models.Model):
    """A text that was split into chunks, or whatever else groups chunks."""

    library = models.ForeignKey(Library, models.DO_NOTHING, related_name="documents", db_index=False)
    public_id = models.CharField("id", max_length=ID_MAX_LENGTH)
    title = models.TextField(blank=True, default="")
    source = models.TextField(blank=True, default="")
    metadata = ExactJSONField(default=dict, blank=True)
    # From then on it is in no answer, and neither are its chunks; null for never.
    expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "vectordb_document"
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["library", "public_id"], name="vectordb_document_id_unique")]
        indexes = [
            models.Index(fields=["library", "id"], name="vectordb_document_order"),
            models.Index(
                fields=["expires_at"], condition=models.Q(expires_at__isnull=False), name="vectordb_document_expiry"
            ),
        ]

    def __str__(self) -> str:
        return self.public_id


class Chunk(models.Model):
    """A piece of text with metadata: what a search returns. Its place in its document is `position`."""

    library = models.ForeignKey(Library, models.DO_NOTHING, related_name="chunks", db_index=False)
    document = models.ForeignKey(
        Document, models.DO_NOTHING, related_name="chunks", null=True, blank=True, db_index=False
    )
    public_id = models.CharField("id", max_length=ID_MAX_LENGTH)
    text = models.TextField(blank=True, default="")
    # What the embedding model is given instead of the text; null for the text itself.
    embed_text = models.TextField(null=True, blank=True)
    metadata = ExactJSONField(default=dict, blank=True)
    position = models.PositiveIntegerField(null=True, blank=True)
    # From then on it is in no answer; null for never.
    expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "vectordb_chunk"
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["library", "public_id"], name="vectordb_chunk_id_unique")]
        indexes = [
            models.Index(fields=["library", "id"], name="vectordb_chunk_order"),
            models.Index(fields=["document", "position"], name="vectordb_chunk_of_document"),
            models.Index(
                fields=["expires_at"], condition=models.Q(expires_at__isnull=False), name="vectordb_chunk_expiry"
            ),
        ]

    def __str__(self) -> str:
        return self.public_id


def text_to_embed(text: str, embed_text: str | None) -> str:
    """What the embedding model is given of a chunk with these fields."""
    return text if embed_text is None else embed_text


class Embedding(models.Model):
    """A chunk's vector in one generation of its library: float32, little-endian, 4 x dimension bytes.

    A trigger checks the length against the library's dimension for the library's current generation.
    """

    pk = models.CompositePrimaryKey("chunk_id", "generation")
    chunk = models.ForeignKey(Chunk, models.DO_NOTHING, related_name="embeddings", db_index=False)
    generation = models.PositiveIntegerField()
    vector = models.BinaryField()

    class Meta:
        db_table = "vectordb_embedding"
        constraints = [
            models.CheckConstraint(
                condition=GreaterThan(Length("vector"), 0) & Exact(Length("vector") % 4, 0),
                name="vectordb_embedding_float32",
            )
        ]


class Reembedding(models.Model):
    """The move of a library to another embedding model: `generation` of its embeddings is being made by it.

    The library's own columns stay as they are until all of them are there. The row is kept while embeddings are left of
    a generation that is neither the library's current one nor this one: after the switch, or when it was called off.
    """

    class State(models.TextChoices):
        RUNNING = "running"
        WAITING = "waiting"  # until `retry_at`, after a failure that may pass
        FAILED = "failed"  # until it is asked for again
        SWEEPING = "sweeping"  # done or called off; what is left over is being deleted

    library = models.OneToOneField(Library, models.DO_NOTHING, primary_key=True, related_name="reembedding")
    generation = models.PositiveIntegerField()
    provider = models.CharField(max_length=64)
    model = models.CharField(max_length=EMBEDDING_MODEL_MAX_LENGTH)
    # That of the first vectors made; null until there are some.
    dimension = models.PositiveIntegerField(null=True)
    state = models.CharField(max_length=16, choices=State.choices, default=State.RUNNING)
    error = models.TextField(default="")
    retry_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        db_table = "vectordb_reembedding"

    def __str__(self) -> str:
        return f"{self.provider} {self.model}"

    @property
    def embedding(self) -> EmbeddingModel:
        """The model that the library moves to."""
        return EmbeddingModel(self.provider, self.model)


class Change(models.Model):
    """The change log: one row per changed chunk, appended by triggers in the transaction of the write.

    A library's revision is its highest `seq`. A changed chunk that has no row is a deletion; `chunk_key` is therefore
    no foreign key. `token` is random, and tells two histories with equal numbers apart. Where `library_key` is 0,
    `chunk_key` is the key of a library whose own row was made, changed or deleted, as far as maintenance looks at it.
    """

    seq = models.BigAutoField(primary_key=True)
    library_key = models.BigIntegerField()
    chunk_key = models.BigIntegerField()
    token = models.BigIntegerField()

    class Meta:
        db_table = "vectordb_change"
        indexes = [models.Index(fields=["library_key", "seq"], name="vectordb_change_of_library")]
