"""Embeddings: text in, vectors out, by a provider that a library names."""
