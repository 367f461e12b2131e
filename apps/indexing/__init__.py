"""Maintenance: what keeps the index files of every library in shape, beside the request workers.

`indexer` is the way in. A tick reads what changed (`change_feed`) and asks what is due (`merge_policy`, by the
thresholds of `policy`); it seals, rebuilds or merges; a `commit` writes the manifest and announces it to all processes.
"""
