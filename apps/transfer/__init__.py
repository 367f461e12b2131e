"""Data in and out: backups, export, import, and the jobs that do them beside the requests.

A job is a row, so it survives a restart. Maintenance starts one process for those that wait (`jobs`); it ends when all
are done. What a job does by steps is committed with its progress, so a killed job goes on where it was.
"""
