"""Writes. Keyword-only functions that own their transaction; each tells the caches on commit.

libraries    create, update, delete
documents    create, replace (PUT), update, delete
chunks       upsert, insert, update, delete
partial      writes of chunks that leave out what cannot be stored
metadata     one change of metadata for many chunks
expiry       the deletion of what has expired
imports      rows that come from elsewhere, with their places and times
reembedding  a library's move to another embedding model
embedding    the vectors that a write makes of its texts
sql          the SQL that they share
"""
