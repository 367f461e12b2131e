"""The tables of access: keys, the audit trail, and requests that are carried out once."""

from django.db import models
from django.utils import timezone

KEY_NAME_MAX_LENGTH = 200


class Key(models.Model):
    """An API key. Only the SHA-256 of its secret is stored, so nobody can read a key from the database.

    `scopes` and `libraries` are words with spaces between them: statements that check a key read them as they are, and
    neither a scope nor the id of a library has a space. After a rotation, the secret before it is good until
    `previous_until`.
    """

    public_id = models.CharField("id", max_length=32, unique=True, editable=False)
    name = models.CharField(max_length=KEY_NAME_MAX_LENGTH)
    scopes = models.CharField(max_length=32)
    # Ids of libraries, and beginnings of ids with an asterisk behind; empty for all libraries.
    libraries = models.TextField(blank=True, default="")
    secret_hash = models.CharField(max_length=64, editable=False)
    previous_hash = models.CharField(max_length=64, blank=True, default="", editable=False)
    previous_until = models.DateTimeField(null=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    reads_per_minute = models.PositiveIntegerField(null=True, blank=True)
    writes_per_minute = models.PositiveIntegerField(null=True, blank=True)
    # Written now and then, not by every request.
    last_used_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "vectordb_key"
        ordering = ["id"]
        # What users and groups may do by the API.
        permissions = [
            ("scope_read", "Can read libraries by the API"),
            ("scope_write", "Can read and change what is in libraries by the API"),
            ("scope_admin", "Can do everything by the API"),
        ]
        constraints = [
            models.CheckConstraint(condition=~models.Q(name="") & ~models.Q(scopes=""), name="vectordb_key_named")
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"


class AuditEntry(models.Model):
    """Who changed what. It names keys, users and libraries by text, since it outlives them."""

    at = models.DateTimeField(default=timezone.now)
    # The id of the key that asked; empty for a user of the admin and for commands.
    key_id = models.CharField(max_length=32, blank=True, default="")
    # The name of the key or of the user.
    name = models.CharField(max_length=KEY_NAME_MAX_LENGTH)
    action = models.CharField(max_length=64)
    # The id of the library, where the change is of one.
    library = models.CharField(max_length=128, blank=True, default="")
    # What else is needed to say what was changed, such as the id of a document or key.
    target = models.TextField(blank=True, default="")
    # How many chunks, documents or other things were changed; null where that is not counted.
    count = models.BigIntegerField(null=True)
    request_id = models.CharField(max_length=128, blank=True, default="")

    class Meta:
        db_table = "vectordb_audit_entry"
        ordering = ["id"]
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["library", "id"], name="vectordb_audit_entry_library"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.library}".strip()


class IdempotentRequest(models.Model):
    """A request with an Idempotency-Key that was carried out. Its row is written in the transaction of its change, with
    the answer where that is known by then."""

    # Who asked, and the key that they sent.
    principal = models.CharField(max_length=KEY_NAME_MAX_LENGTH + 16)
    key = models.CharField(max_length=255)
    # A digest of method, path, query and body, in hexadecimal.
    fingerprint = models.CharField(max_length=64)
    # Random: tells the row of one attempt from that of another with the same key.
    token = models.CharField(max_length=32)
    created_at = models.DateTimeField(default=timezone.now)
    # Null while there is no answer.
    status = models.PositiveSmallIntegerField(null=True)
    headers = models.JSONField(default=dict)
    # Null too where the answer had a secret.
    body = models.BinaryField(null=True)

    class Meta:
        db_table = "vectordb_idempotent_request"
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["principal", "key"], name="vectordb_idempotent_request_key")]

    def __str__(self) -> str:
        return f"{self.principal} {self.key}"
