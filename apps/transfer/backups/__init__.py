"""Backups: one state of the database, copied beside writers, checked, and put back.

A backup is a folder, on a disk or in an object store, named by its id: a copy of the database, and `manifest.json`,
which is written last, so that what has one is whole. Index files are derived from the database and are in no backup.
"""
