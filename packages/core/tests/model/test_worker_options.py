"""The worker's options."""

from __future__ import annotations

from typing import Any

import pytest

from procrastinate.errors import InvalidOption
from procrastinate.model.worker_options import WorkerOptions, worker_options


def test_the_defaults() -> None:
    assert worker_options() == WorkerOptions(
        queues=None,
        name=None,
        concurrency=1,
        wait=True,
        listen_notify=True,
        fetch_job_polling_interval=5.0,
        abort_job_polling_interval=5.0,
        shutdown_graceful_timeout=None,
        delete_jobs="never",
        update_heartbeat_interval=10,
        stalled_worker_timeout=30,
        install_signal_handlers=True,
        additional_context=None,
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("queues", "default"),
        ("queues", []),
        ("queues", [""]),
        ("queues", [7]),
        ("name", ""),
        ("concurrency", 0),
        ("concurrency", True),
        ("concurrency", 1.5),
        ("wait", "yes"),
        ("fetch_job_polling_interval", 0),
        ("fetch_job_polling_interval", float("inf")),
        ("shutdown_graceful_timeout", -1),
        ("fetch_job_polling_interval", 1e20),
        ("stalled_worker_timeout", 1e13),
        ("delete_jobs", "sometimes"),
        ("update_heartbeat_interval", 30),
        ("additional_context", ["a"]),
        ("colour", "red"),
    ],
)
def test_a_bad_option_is_named(option: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=option):
        worker_options(**{option: value})


def test_the_old_name_of_the_polling_interval_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="fetch_job_polling_interval"):
        options = worker_options(timeout=2.0)

    assert options.fetch_job_polling_interval == 2.0


def test_the_old_name_together_with_the_new_one_is_refused() -> None:
    with (
        pytest.warns(DeprecationWarning, match="timeout"),
        pytest.raises(InvalidOption, match="give one"),
    ):
        worker_options(timeout=2.0, fetch_job_polling_interval=3.0)
