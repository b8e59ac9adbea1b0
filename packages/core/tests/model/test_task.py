"""Task definitions, their arguments, and the registry."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from procrastinate.errors import (
    InvalidArguments,
    InvalidOption,
    TaskAlreadyRegistered,
    TaskNotFound,
)
from procrastinate.model.task import TaskDefinition, TaskRegistry


def plain(a: int, b: int = 2, **rest: Any) -> None: ...
def strict(a: int, *, b: int = 2) -> None: ...
def with_context(context: Any, a: int) -> None: ...
def positional_only(a: int, /) -> None: ...
async def asynchronous() -> None: ...


def definition(func: Any = plain, name: str = "task", **options: Any) -> TaskDefinition:
    return TaskDefinition(func=func, name=name, **options)


def generator(n: int) -> Iterator[int]:
    yield n


async def async_generator(n: int) -> AsyncIterator[int]:
    yield n


class Generators:
    def __call__(self, n: int) -> Iterator[int]:
        yield n

    def method(self, n: int) -> Iterator[int]:
        yield n


class AsyncGenerators:
    async def __call__(self, n: int) -> AsyncIterator[int]:
        yield n


GENERATORS = [
    generator,
    async_generator,
    functools.partial(generator),
    functools.partial(async_generator, n=1),
    Generators(),
    Generators().method,
    functools.partial(Generators().method),
    AsyncGenerators(),
    lambda n: (yield n),
]


@pytest.mark.parametrize("func", GENERATORS)
def test_a_generator_is_no_task_because_a_call_runs_nothing_of_it(func: Any) -> None:
    with pytest.raises(InvalidOption, match=r"task 'task' has a `yield`"):
        definition(func)


def test_a_function_that_runs_a_generator_is_a_task() -> None:
    definition(contextmanager(generator))
    definition(lambda n: list(generator(n)))


@pytest.mark.parametrize("kwargs", [{}, {"a": 1, "c": 3}, {"b": 1}])
def test_arguments_that_do_not_fit_are_refused_by_name(kwargs: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments, match=r"task\(a.*'[abc]'"):
        definition(strict).check_arguments(kwargs)


def test_arguments_that_fit_pass() -> None:
    definition().check_arguments({"a": 1, "other": 2})
    definition(with_context, pass_context=True).check_arguments({"a": 1})


def test_positional_arguments_get_their_names() -> None:
    assert definition().bound_arguments((1,), {"b": 3, "c": 4}) == {"a": 1, "b": 3, "c": 4}


def test_the_context_is_not_an_argument_of_the_job() -> None:
    with pytest.raises(InvalidArguments, match="context"):
        definition(with_context, pass_context=True).check_arguments({"context": 1, "a": 1})


def test_a_positional_only_parameter_is_refused_at_definition() -> None:
    with pytest.raises(InvalidOption, match="positional-only"):
        definition(positional_only)


def test_pass_context_needs_a_parameter_for_it() -> None:
    with pytest.raises(InvalidOption, match="pass_context"):
        definition(asynchronous, pass_context=True)


def test_async_functions_and_objects_are_told_apart() -> None:
    class Callable:
        async def __call__(self) -> None: ...

    assert [definition(func).is_async for func in (plain, asynchronous, Callable())] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("name", ""),
        ("name", "x" * 129),
        ("name", 7),
        ("queue", ""),
        ("queue", "x" * 129),
        ("queue", "a\0b"),
        ("priority", "high"),
        ("priority", 2**31),
        ("lock", 5),
        ("queueing_lock", "x" * 600),
        ("pass_context", 1),
        ("pass_context", "yes"),
    ],
)
def test_a_bad_option_is_named(option: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=option):
        definition(**{"name": "task", option: value})


def test_a_second_task_of_the_same_name_is_refused_and_the_first_one_named() -> None:
    registry = TaskRegistry()
    registry.add(definition())

    with pytest.raises(TaskAlreadyRegistered, match=r"test_task\.plain"):
        registry.add(definition(asynchronous))
    assert registry["task"].func is plain


def test_an_alias_finds_the_task_and_cannot_be_taken_twice() -> None:
    registry = TaskRegistry()
    registry.add(definition(aliases=("old",)))
    registry.add_alias("task", "older")

    assert registry["old"] is registry["older"] is registry["task"]
    with pytest.raises(TaskAlreadyRegistered, match="older"):
        registry.add_alias("task", "older")


@pytest.mark.parametrize("aliases", [("task",), ("a", "b", "a")])
def test_a_task_with_the_same_name_twice_is_refused(aliases: tuple[str, ...]) -> None:
    with pytest.raises(TaskAlreadyRegistered, match=r"'(task|a)' twice"):
        TaskRegistry().add(definition(aliases=aliases))


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(TaskNotFound, match="'nobody'"):
        TaskRegistry()["nobody"]


def test_a_namespace_is_taken_up_whole_or_not_at_all() -> None:
    source, target = TaskRegistry(), TaskRegistry()
    source.add(definition(name="a", aliases=("b",)))
    source.add(definition(asynchronous, name="c"))
    target.add(definition(name="ns:c"))

    with pytest.raises(TaskAlreadyRegistered, match="ns:c"):
        target.add_all(source, namespace="ns")
    assert list(target) == ["ns:c"]

    target.add_all(source, namespace="other")
    assert list(target) == ["ns:c", "other:a", "other:b", "other:c"]
    assert target["other:a"] is target["other:b"]


@pytest.mark.parametrize("value", [False, True, "strict"])
def test_a_task_says_whether_its_results_are_kept(value: Any) -> None:
    assert definition(result=value).result == value


@pytest.mark.parametrize("value", [None, 0, 1, "", "Strict", "true", ["strict"], object])
def test_another_value_of_the_option_result_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match='result must be True, False or "strict", not'):
        definition(result=value)
