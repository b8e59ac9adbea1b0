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
