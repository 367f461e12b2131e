"""The vector engine: numpy arrays in, numpy arrays out; no Django, no database. Usable as a plain library.

vectors     what may be stored: shape, dtype, finite, bounded
metrics     cosine, dot, euclidean: exact scores, and bounds for quick ones
selection   the k best of many scores that are only known within a bound
index       the interface of every index, and what a search returns
scan        products of queries and a matrix, by several threads
brute_force exact search
kernels     compiled functions, with numpy in their place until they are loaded
registry    index types by name
filters     the language of filters
columns     what filters look at, column by column
lexical     words: full text search by BM25
content     columns and words of the rows of a part
segment     sealed rows with their index, in memory or mapped from files
store       the index files of a library: segments and manifests, checked when they are opened
tail        rows newer than the last segment, in a buffer that grows
view        one state of a library: segments, tail, dead rows; searched without a lock
"""
