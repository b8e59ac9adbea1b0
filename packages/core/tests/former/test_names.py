"""Names that releases up to 3.x had: found where they were, or told what there is instead."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from typing import Any

import pytest

import procrastinate
from procrastinate import former
from procrastinate.former import names
from procrastinate.model.job import FORMER_NAMES
from procrastinate.storage.jobs import Counts
from procrastinate.testing import InMemoryConnector
from procrastinate.testing.base import JobList

CLASSES: dict[str, type] = {
    "Blueprint": procrastinate.Blueprint,
    "Task": importlib.import_module("procrastinate.app.task").Task,
    "JobDeferrer": importlib.import_module("procrastinate.app.deferring").JobDeferrer,
    "JobManager": importlib.import_module("procrastinate.app.job_manager").JobManager,
    "Job": procrastinate.Job,
    "JobContext": procrastinate.JobContext,
    "Worker": procrastinate.Worker,
    "Connector": InMemoryConnector,
    "KeepsJobs": InMemoryConnector,
    "JobList": JobList,
}


@pytest.fixture
def app() -> procrastinate.App:
    return procrastinate.App(connector=InMemoryConnector())


@pytest.mark.parametrize("module", former.FORMER_MODULES)
def test_a_former_module_is_found_by_import_and_as_an_attribute(module: str) -> None:
    found = importlib.import_module(f"procrastinate.{module}")

    assert former.former_attribute(module, asked_by_import=False) is found
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        found.nonsense  # noqa: B018


def test_importing_procrastinate_is_enough_and_loads_none_of_them() -> None:
    code = (
        "import sys, procrastinate\n"
        f"modules = [f'procrastinate.{{name}}' for name in {former.FORMER_MODULES}]\n"
        "assert not set(modules) & set(sys.modules), sys.modules.keys()\n"
        "assert 'procrastinate.former.names' not in sys.modules\n"
        "assert procrastinate.exceptions.AppNotOpen is procrastinate.AppNotOpen\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_errors_are_the_same_under_their_former_path() -> None:
    exceptions = importlib.import_module("procrastinate.exceptions")

    assert exceptions.ConnectorException is procrastinate.ConnectorException
    assert exceptions.AlreadyEnqueued is procrastinate.AlreadyEnqueued


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, of in names.MODULES.items() for name in of]
)
def test_a_name_that_is_gone_from_a_module_says_what_to_write(module: str, name: str) -> None:
    with pytest.raises(ImportError) as raised:
        exec(f"from {module} import {name}", {})

    assert str(raised.value) == (
        f"{module}.{name}, which Procrastinate 3 had, is gone: {names.MODULES[module][name]}"
    )


def test_a_name_that_is_gone_from_the_package_is_an_attribute_error() -> None:
    assert not hasattr(procrastinate, "BaseConnector")
    with pytest.raises(AttributeError, match="SyncConnector"):
        procrastinate.BaseConnector  # noqa: B018


def test_the_table_names_only_what_is_gone() -> None:
    assert names.ATTRIBUTES.keys() == CLASSES.keys()
    for of, texts in names.ATTRIBUTES.items():
        assert not [name for name in texts if hasattr(CLASSES[of], name)]
    for module, texts in names.MODULES.items():
        assert not [name for name in texts if name in vars(importlib.import_module(module))]


def test_a_job_knows_all_of_its_former_names() -> None:
    assert set(FORMER_NAMES) == names.ATTRIBUTES["Job"].keys()


@pytest.mark.parametrize("of", sorted(names.ATTRIBUTES))
def test_an_attribute_that_is_gone_says_what_to_write(of: str) -> None:
    for name, text in names.ATTRIBUTES[of].items():
        with pytest.raises(AttributeError) as raised:
            getattr(CLASSES[of].__new__(CLASSES[of]), name)
        assert str(raised.value).endswith(f", which Procrastinate 3 had: {text}")
        assert raised.value.name == name


def test_any_other_name_is_missing_as_always(app: procrastinate.App) -> None:
    with pytest.raises(AttributeError) as raised:
        app.nonsense  # type: ignore[attr-defined]  # noqa: B018
    assert str(raised.value) == "'App' object has no attribute 'nonsense'"
    assert getattr(app.job_manager, "fetch_job", None) is None


def test_a_property_that_raises_says_why() -> None:
    class Broken(former.HasFormerNames):
        @property
        def engine(self) -> Any:
            return None.engine  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'engine'"):
        Broken().engine  # noqa: B018


def test_a_job_and_a_count_are_no_dicts(app: procrastinate.App) -> None:
    app.configure_task("task").defer(a=1)
    job: Any = app.job_manager.list_jobs()[0]
    counts: Any = app.job_manager.list_queues()[0]

    with pytest.raises(TypeError, match=r"Job is no dict .* read \.task_kwargs$"):
        job["args"]
    with pytest.raises(TypeError, match=r"Counts is no dict .* read \.jobs_count$"):
        counts["jobs_count"]
    with pytest.raises(TypeError, match=r"^'Job' object is not subscriptable$"):
        job[0]
    assert isinstance(counts, Counts)
    assert pickle.loads(pickle.dumps(job)) == job


def test_the_jobs_in_memory_are_a_list_and_no_dict(app: procrastinate.App) -> None:
    app.configure_task("task").defer(a=1)
    jobs: Any = app.connector.jobs  # type: ignore[attr-defined]

    assert [job.id for job in jobs] == [1]
    assert jobs == app.job_manager.list_jobs()
    with pytest.raises(AttributeError, match="it is a list of jobs, in order of id"):
        jobs.values()
