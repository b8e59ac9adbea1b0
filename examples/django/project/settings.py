"""The settings. The database is that of libpq's environment: PGHOST, PGUSER, PGDATABASE."""

from __future__ import annotations

import os

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("PGDATABASE", "orders"),
    },
}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "orders",
    "procrastinate_django",
]
PROCRASTINATE = {"WORKER_DEFAULTS": {"concurrency": 5}}

ROOT_URLCONF = "project.urls"
DEBUG = True
SECRET_KEY = "of an example"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
