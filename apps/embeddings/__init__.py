"""Embeddings: text in, vectors out, by a provider that a library names.

services   `embed`: batches, checks, retries, a time-out, and the vectors of recent queries
splitting  a long text to pieces that a model reads whole
tokens     an estimate of how many tokens a text has
registry   providers by name; their modules and packages are imported when they are first asked for
provider   the interface of every provider
providers  one module for each
cache      the vectors of recent queries
config     the settings of all of them
errors     what can go wrong, and whose fault it is
"""
