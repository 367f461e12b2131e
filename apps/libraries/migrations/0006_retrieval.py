"""Expiry of chunks and documents, texts for the embedding model alone, and metadata that no filter looks at. No table of
chunks or documents is copied: their new columns are null."""

from django.db import migrations, models

import apps.libraries.models


class Migration(migrations.Migration):
    dependencies = [("libraries", "0001_squashed_0005_table_prefix")]

    operations = [
        migrations.AddField("chunk", "embed_text", models.TextField(blank=True, null=True)),
        migrations.AddField("chunk", "expires_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField("document", "expires_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField(
            "library", "unindexed", apps.libraries.models.ExactJSONField(blank=True, default=list, editable=False)
        ),
        migrations.AddIndex(
            "chunk",
            models.Index(
                condition=models.Q(("expires_at__isnull", False)), fields=["expires_at"], name="vectordb_chunk_expiry"
            ),
        ),
        migrations.AddIndex(
            "document",
            models.Index(
                condition=models.Q(("expires_at__isnull", False)),
                fields=["expires_at"],
                name="vectordb_document_expiry",
            ),
        ),
    ]
