"""Embeddings: text in, vectors out, by a provider that a library names.

services   `embed`: batches, checks, retries, a time-out, and a cache of queries
splitting  a long text to chunks that a model reads whole
registry   providers by name; their modules and packages are imported at first use
provider   the interface of every provider
providers  one module for each
config     the settings of all of them
errors     the errors, by whose fault they are
"""
