"""Jobs are bound to their libraries."""

from typing import Any

from django.db import migrations, models
from django.utils import timezone


def bind_running_jobs(apps: Any, schema_editor: Any) -> None:
    """Bind the imports and migrations that are under way; those whose library is gone have failed."""
    alias = schema_editor.connection.alias
    uids = dict(apps.get_model("libraries", "Library").objects.using(alias).values_list("public_id", "uid"))
    running = apps.get_model("transfer", "Job").objects.using(alias).filter(
        state="running", kind__in=["import", "migrate"]
    )
    for job in running:
        if job.library in uids:
            job.library_uid = uids[job.library]
        elif job.progress:
            job.state, job.error, job.ended_at = "failed", "Its library was deleted.", timezone.now()
        job.save()


class Migration(migrations.Migration):
    dependencies = [
        ("libraries", "0006_retrieval"),
        ("transfer", "0001_job"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="library_uid",
            field=models.CharField(blank=True, default="", max_length=32),
        ),
        migrations.RunPython(bind_running_jobs, migrations.RunPython.noop),
    ]
