"""Which middleware may wrap what, and in which order."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from procrastinate.errors import InvalidOption
from procrastinate.model.middleware import Layers, is_async, layers, middlewares
from procrastinate.model.task import TaskDefinition, TaskRegistry
from procrastinate.model.worker_options import WorkerOptions


def plain(call_next: Any, context: Any, worker: Any) -> Any: ...
def plain_too(call_next: Any, context: Any, worker: Any) -> Any: ...
async def on_loop(call_next: Any, context: Any, worker: Any) -> Any: ...
async def on_loop_too(call_next: Any, context: Any, worker: Any) -> Any: ...


class AsyncObject:
    async def __call__(self, call_next: Any, context: Any, worker: Any) -> Any: ...


def function() -> None: ...
async def coroutine() -> None: ...


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, ()),
        ((), ()),
        (plain, (plain,)),
        ([plain, on_loop], (plain, on_loop)),
        ((plain,), (plain,)),
    ],
)
def test_middleware_is_given_as_one_function_or_as_a_sequence(given: Any, found: Any) -> None:
    assert middlewares(given) == found


@pytest.mark.parametrize("given", ["plain", 5, {plain}, [plain, None], [[plain]]])
def test_what_is_no_function_is_refused_with_its_value(given: Any) -> None:
    with pytest.raises(InvalidOption, match="middleware must be a function or a list of them, not"):
        middlewares(given)


@pytest.mark.parametrize("kind", ["plain", "async def"])
def test_middleware_with_a_yield_is_refused_because_a_call_runs_nothing_of_it(kind: str) -> None:
    def wraps(call_next: Any, context: Any, worker: Any) -> Any:
        yield call_next()

    async def wraps_on_loop(call_next: Any, context: Any, worker: Any) -> Any:
        yield await call_next()

    with pytest.raises(InvalidOption, match=r"wraps\w* has a `yield`.*call_next\(\)"):
        middlewares(wraps if kind == "plain" else wraps_on_loop)


def test_middleware_that_cannot_be_called_as_middleware_is_refused_by_name() -> None:
    def too_few(call_next: Any, context: Any) -> Any: ...

    with pytest.raises(InvalidOption, match=r"called with .*too_few cannot be"):
        middlewares(too_few)


@pytest.mark.parametrize(
    ("middleware", "asynchronous"),
    [
        (plain, False),
        (on_loop, True),
        (AsyncObject(), True),
        (functools.partial(on_loop, worker=None), True),
        (lambda call_next, context, worker: None, False),
    ],
)
def test_the_kind_of_a_callable_is_seen(middleware: Any, asynchronous: bool) -> None:
    assert is_async(middleware) is asynchronous


@pytest.mark.parametrize(
    ("func", "middleware", "message"),
    [
        (function, on_loop, r"'t' is a plain function, and its .*\.on_loop is an `async def`"),
        (coroutine, plain, r"'t' is an `async def`, and its .*\.plain is a plain function"),
        (coroutine, (on_loop, plain), r"its .*\.plain is a plain function"),
    ],
)
def test_a_task_refuses_middleware_of_the_other_kind(
    func: Any, middleware: Any, message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        TaskDefinition(func, "t", middleware=middlewares(middleware))


@pytest.mark.parametrize(
    ("func", "of_task", "of_worker", "expected"),
    [
        (function, (), (), Layers()),
        (function, (plain,), (), Layers((), (plain,))),
        (function, (plain,), (plain_too,), Layers((), (plain_too, plain))),
        (function, (plain,), (on_loop,), Layers((on_loop,), (plain,))),
        (function, (plain,), (on_loop, plain_too), Layers((on_loop,), (plain_too, plain))),
        (coroutine, (on_loop,), (), Layers((on_loop,))),
        (coroutine, (on_loop,), (on_loop_too,), Layers((on_loop_too, on_loop))),
    ],
)
def test_the_workers_middleware_is_outside_of_the_tasks(
    func: Any, of_task: Any, of_worker: Any, expected: Layers
) -> None:
    assert TaskDefinition(func, "t", middleware=of_task).layers(of_worker) == expected


def test_a_workers_plain_middleware_does_not_silently_leave_async_tasks_out() -> None:
    with pytest.raises(InvalidOption, match=r"\.plain is a plain function and cannot wrap .*'t'"):
        layers("t", True, (), (on_loop, plain))


def test_a_workers_plain_middleware_cannot_be_outside_of_an_async_one() -> None:
    with pytest.raises(InvalidOption, match=r"\.plain .* cannot wrap .*\.on_loop"):
        WorkerOptions(middleware=(plain, on_loop))
    assert WorkerOptions(middleware=[on_loop, plain]).middleware == (on_loop, plain)  # type: ignore[arg-type]
    assert WorkerOptions(middleware=None).middleware == ()  # type: ignore[arg-type]


def test_middleware_goes_along_with_a_namespace() -> None:
    registry, other = TaskRegistry(), TaskRegistry()
    other.add(TaskDefinition(function, "t", middleware=(plain,)))
    registry.add_all(other, namespace="ns")

    assert registry["ns:t"].middleware == (plain,)
