"""``procrastinate --app procrastinate_django.worker_app.app``: what the management command uses.

It needs DJANGO_SETTINGS_MODULE in the environment, as any program of Django's does.
"""

from __future__ import annotations

import django
from django.apps import apps

from procrastinate_django.project import worker_app

if not apps.ready:
    django.setup()

app = worker_app()
