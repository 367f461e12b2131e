"""The index types by themselves, in one process and one thread: recall, queries a second, build time, size.

grids       data sets, index types and their parameters, as data
references  the same searches by numpy, faiss, hnswlib and scipy, called directly
runner      builds, searches in turns, recomputes distances
plot        recall against queries a second
wanted      batches, a graph and filters on the real data, beside what is wanted of them

`python -m benchmarks.engine` runs them.
"""
