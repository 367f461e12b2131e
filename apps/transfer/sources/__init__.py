"""Other vector databases, as `manage.py migrate_from` reads them: one module for each, which imports the vendor's own
package when a source is opened. `base` is what they share, `chunks` makes chunks of their rows."""

from typing import Final

SOURCES: Final = {
    "chroma": "apps.transfer.sources.chroma.ChromaSource",
    "qdrant": "apps.transfer.sources.qdrant.QdrantSource",
    "pgvector": "apps.transfer.sources.pgvector.PgvectorSource",
    "lancedb": "apps.transfer.sources.lancedb.LanceDBSource",
    "faiss": "apps.transfer.sources.faiss.FaissSource",
}
