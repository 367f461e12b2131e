"""Jobs know whether they made their libraries."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("transfer", "0002_job_library_uid")]

    operations = [migrations.AddField("job", "made_library", models.BooleanField(default=False))]
