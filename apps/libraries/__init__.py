"""The write model: Library > Document > Chunk, each chunk with its embedding, and the change log.

models     the tables and their constraints
dialects   what SQLite and PostgreSQL do differently: triggers, snapshots, upkeep
inputs     what a write may say, parsed and checked
services   writes: keyword-only functions that own their transaction
selectors  reads, as the dictionaries that the API shows
signals    tells this process's caches of a write
"""
