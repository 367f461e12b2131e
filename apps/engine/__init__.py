"""The vector engine: numpy arrays in, numpy arrays out; no Django, no database. Usable as a plain library.

storage      segments, the tail of newer rows, views of both, and their files
indexes      index types behind one interface, and the matrix that each is built over
metadata     columns, filters and facets
text         full-text search by BM25
selection    the k best of many scores that are only known within a bound
strings      many byte strings in one array
expiry       when rows expire
vectors      what may be stored: shape, dtype, finite, bounded
metrics      cosine, dot, euclidean: exact scores, and bounds for quick ones
array_files  arrays in mapped files
errors       what the engine refuses
kernels      compiled functions, with numpy in their place until they are loaded
"""
