"""Where Procrastinate 3 had what is in the package ``procrastinate-django`` now.

`app` is that package's. Any other old name, also one of an old submodule, says what to write.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

PACKAGE = "procrastinate_django"
PAGE = "the page 'Take over the jobs of Procrastinate 3 and older' has all steps"
#: What to write instead of each old name.
_INSTEAD = {
    "DjangoApp": "App(connector=DjangoConnector(), observers=[ConnectionCare()]), with both from"
    f" {PACKAGE}",
    "DjangoConnector": f"from {PACKAGE} import DjangoConnector",
    "DjangoNotReady": "nothing: the app can be used as soon as Django is set up",
    "FutureApp": f"from {PACKAGE} import app",
    "ProcrastinateConfig": f"from {PACKAGE} import app",
    "ProcrastinateEvent": f"the times and errors of a {PACKAGE}.models.Job",
    "ProcrastinateJob": f"from {PACKAGE}.models import Job (queue_name is queue there, and args is"
    " task_kwargs)",
    "ProcrastinatePeriodicDefer": "app.job_manager.list_schedules()",
    "ProcrastinateWorker": "app.job_manager.list_workers()",
    "ReadOnlyModel": f"from {PACKAGE}.models import ReadOnly",
    "RunProcrastinateSQL": f"nothing: the migration of {PACKAGE} does it",
    "connector_params": "nothing: a worker's connector is made from DATABASES",
    "current_app": f"from {PACKAGE} import app",
    "healthchecks": "`python manage.py procrastinate healthchecks`",
    "settings": "the setting PROCRASTINATE, a dict",
}
_SUBMODULES = (
    *("admin", "db_cleanup", "django_connector", "exceptions", "healthchecks", "migrations_utils"),
    *("models", "procrastinate_app", "settings", "utils"),
)


class _Moved(ModuleType):
    """An old submodule."""

    def __getattr__(self, name: str) -> Any:
        return _old(name, self.__name__)


def _old(name: str, module: str) -> Any:
    """Return the app. For another old name, raise an ImportError with what to write instead."""
    if name.startswith("__"):
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    if name == "app":
        return _app()
    instead = _INSTEAD.get(name, f"what {PACKAGE} has instead")
    raise ImportError(
        f"{module}.{name} was Procrastinate 3's. Instead: {instead}; {PAGE}", name=module
    )


def _app() -> Any:
    if importlib.util.find_spec(PACKAGE) is None:
        raise ImportError(
            "procrastinate's app for Django has a package of its own now: run `pip install"
            " 'procrastinate-django[psycopg]'`",
            name=PACKAGE,
        )
    return importlib.import_module(PACKAGE).app


def __getattr__(name: str) -> Any:
    return _old(name, __name__)


for _name in _SUBMODULES:
    globals()[_name] = sys.modules[f"{__name__}.{_name}"] = _Moved(f"{__name__}.{_name}")
