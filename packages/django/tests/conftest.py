"""Django, set up once. PROCRASTINATE_TEST_DJANGO=psycopg2 hides psycopg 3 from it."""

from __future__ import annotations

import os
import sys
from typing import Any

if os.environ.get("PROCRASTINATE_TEST_DJANGO") == "psycopg2":
    hidden: Any = None
    sys.modules["psycopg"] = hidden

import django
from django.conf import settings

#: Each test names the database that it was given as an alias of its own: see `databases`.
settings.configure(
    SECRET_KEY="tests",
    USE_TZ=True,
    TIME_ZONE="Europe/Paris",
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "nowhere"}},
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.messages",
        "django.contrib.sessions",
        "django.contrib.admin",
        "procrastinate_django",
    ],
    TASKS={
        "default": {
            "BACKEND": "procrastinate_django.ProcrastinateBackend",
            "QUEUES": ["default", "mail"],
        },
        "other": {"BACKEND": "procrastinate_django.ProcrastinateBackend"},
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()
