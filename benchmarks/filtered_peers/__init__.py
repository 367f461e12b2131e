"""Filtered search beside other engines: latency and recall@10 of the same queries under the same filters.

`python -m benchmarks.filtered_peers`, docs/benchmarks.md. Each engine is measured in a process of its own, one after
the other, in turns with an exact scan by numpy; what is not installed is left out.

__main__  options, one process an engine, the table
measure   that process: builds, asks, prints JSON
engine    what an engine is
servers  embedded   the engines
registry  their names
"""
