"""The index types by themselves, in one process and one thread: recall, queries a second, build time, size.

grids       data sets, index types and their parameters, as data
references  the same searches by numpy, faiss, hnswlib and scipy, called directly
runner      builds, searches in turns, recomputes distances
plot        recall against queries a second

`python -m benchmarks.engine` runs them.
"""
