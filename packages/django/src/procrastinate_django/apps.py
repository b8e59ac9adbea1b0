"""``INSTALLED_APPS += ["procrastinate_django"]``."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules

from procrastinate_django import conf


class ProcrastinateConfig(AppConfig):
    """Finds the tasks of all installed apps, and registers the system checks."""

    name = "procrastinate_django"
    label = "procrastinate_django"
    verbose_name = "Jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from procrastinate_django.checks import check_project, check_tables, check_tasks
        from procrastinate_django.tables import renew_schema

        checks.register(check_project)
        checks.register(check_tasks)
        checks.register(check_tables, checks.Tags.database)
        post_migrate.connect(renew_schema, sender=self)
        if conf.problems():  # the checks say it, and so does whatever uses the setting
            return
        modules = conf.read_conf().autodiscover
        if modules is not None:
            autodiscover_modules(modules)
