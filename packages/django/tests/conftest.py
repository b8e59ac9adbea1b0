"""Django, set up once. PROCRASTINATE_TEST_DJANGO=psycopg2 hides psycopg 3 from it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

if os.environ.get("PROCRASTINATE_TEST_DJANGO") == "psycopg2":
    hidden: Any = None
    sys.modules["psycopg"] = hidden

import django
from django.conf import settings
from django.test.utils import setup_test_environment

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
    ROOT_URLCONF=f"{__package__}.urls",
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ],
            },
        },
    ],
    STATIC_URL="static/",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
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
setup_test_environment()


@pytest.fixture(scope="module")
def migrated(procrastinate_server: Any) -> Iterator[None]:
    """A database for the alias "default", with all tables."""
    from django.core.management import call_command
    from django.db import connections

    from .databases import settings_of

    def lead_to(entry: dict[str, Any]) -> None:
        connections["default"].close()
        connections.settings["default"] = entry
        del connections["default"]

    nowhere = connections.settings["default"]
    with procrastinate_server.database() as dsn:
        lead_to(settings_of(dsn))
        call_command("migrate", verbosity=0)
        yield
        lead_to(nowhere)


@pytest.fixture
def tables(migrated: None) -> None:
    """The tables of that database, without jobs and users."""
    from django.contrib.auth.models import User
    from django.db import connections

    with connections["default"].cursor() as cursor:
        cursor.execute("delete from procrastinate_jobs")
    User.objects.all().delete()
