"""Core's migrations 1 to 10."""

from __future__ import annotations

from django.db import migrations

from procrastinate_django.tables import apply_schema


class Migration(migrations.Migration):
    initial = True
    atomic = False  # core's migrations have transactions of their own
    dependencies: list[tuple[str, str]] = []
    # Nothing is dropped on the way back: jobs would be lost with the tables.
    operations = [migrations.RunPython(apply_schema, migrations.RunPython.noop)]
