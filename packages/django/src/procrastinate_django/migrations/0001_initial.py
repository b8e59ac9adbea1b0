"""Core's migrations 1 to 10, and the model of jobs, which Django does not manage."""

from __future__ import annotations

from django.db import migrations, models

from procrastinate_django.models import table_name
from procrastinate_django.tables import apply_schema


class Migration(migrations.Migration):
    initial = True
    atomic = False  # core's migrations have transactions of their own
    dependencies: list[tuple[str, str]] = []
    operations = [
        # Nothing is dropped on the way back: jobs would be lost with the tables.
        migrations.RunPython(apply_schema, migrations.RunPython.noop),
        migrations.CreateModel(
            name="Job",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
            ],
            options={
                "db_table": table_name(),
                "managed": False,
                "ordering": ["-id"],
                "default_permissions": ("view", "change"),
            },
        ),
    ]
