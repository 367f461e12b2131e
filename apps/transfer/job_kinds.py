"""The table of kinds of jobs. A function takes a `JobContext`, may return the job's result, and is imported when such a
job is run: what exports and backups need is slow to import.

A function that ends early, with the process, is called again later, with the progress that it last wrote.
"""

JOB_KINDS: dict[str, str] = {
    "backup": "apps.transfer.backups.make.run_backup_job",
    "import": "apps.transfer.import_job.run_import",
}
