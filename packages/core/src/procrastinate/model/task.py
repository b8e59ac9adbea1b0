"""A task as it is defined, and the registry that apps and blueprints share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from procrastinate.errors import (
    InvalidArguments,
    InvalidOption,
    TaskAlreadyRegistered,
    TaskNotFound,
)
from procrastinate.model import checks
from procrastinate.model.endings.retry import BaseRetryStrategy
from procrastinate.model.middleware import (
    AnyMiddleware,
    Layers,
    check_kind,
    is_async,
    is_generator,
    layers,
)
from procrastinate.model.text.printable import shown


@dataclass(frozen=True, eq=False)
class TaskDefinition:
    """What the decorator was told: the function, its names, and the defaults of its jobs.

    ``timeout`` is seconds for one attempt; ``middleware`` wraps each, outermost first. ``result``
    says whether what the task returns is kept; if it is "strict", an attempt whose result cannot be
    kept has failed.
    """

    func: Callable[..., Any]
    name: str
    aliases: tuple[str, ...] = ()
    retry: BaseRetryStrategy | None = None
    pass_context: bool = False
    queue: str = "default"
    priority: int = 0
    lock: str | None = None
    queueing_lock: str | None = None
    partition_key: str | None = None
    timeout: float | None = None
    middleware: tuple[AnyMiddleware, ...] = ()
    result: bool | Literal["strict"] = False
    is_async: bool = field(init=False)
    _signature: inspect.Signature = field(init=False, repr=False)
    _required: frozenset[str] = field(init=False, repr=False)
    _accepted: frozenset[str] | None = field(init=False, repr=False)  # None: any name

    def __post_init__(self) -> None:
        checks.check_name("name", self.name)
        checks.check_flag("pass_context", self.pass_context)
        for alias in self.aliases:
            checks.check_name("aliases", alias)
        checks.check_name("queue", self.queue)
        checks.check_priority(self.priority)
        checks.check_lock("lock", self.lock)
        checks.check_lock("queueing_lock", self.queueing_lock)
        checks.check_lock("partition_key", self.partition_key)
        checks.check_limit("timeout", self.timeout)
        checks.check_result("result", self.result)
        if is_generator(self.func):
            raise InvalidOption(
                f"task {self.name!r} has a `yield`, so that a call runs nothing of it: make a task"
                " of a function that loops over it"
            )
        object.__setattr__(self, "is_async", is_async(self.func))
        signature = _job_signature(self.func, self.pass_context)
        object.__setattr__(self, "_signature", signature)
        object.__setattr__(self, "_required", _required_names(signature))
        object.__setattr__(self, "_accepted", _accepted_names(signature))
        check_kind(self.name, self.is_async, self.middleware)

    def layers(self, of_worker: Sequence[AnyMiddleware]) -> Layers:
        """Return what wraps this task in a worker. Raises `InvalidOption`."""
        return layers(self.name, self.is_async, self.middleware, of_worker)

    def bound_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return a call's arguments by name. Raises `InvalidArguments` if they do not fit."""
        if not args:
            self.check_arguments(kwargs)
            return kwargs
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise self._misfit(exc) from exc
        return _by_name(bound)

    def check_arguments(self, kwargs: dict[str, Any]) -> None:
        """Raise `InvalidArguments` unless the function can be called with these arguments."""
        names = kwargs.keys()
        if self._required <= names and (self._accepted is None or names <= self._accepted):
            return  # `bind` comes to the same, in six times as long; but it says what is wrong
        try:
            self._signature.bind(**kwargs)
        except TypeError as exc:
            raise self._misfit(exc) from exc

    def has_parameter(self, name: str) -> bool:
        """Whether the function has a parameter of this name, that a job can give."""
        parameter = self._signature.parameters.get(name)
        return parameter is not None and parameter.kind in _NAMED

    def _misfit(self, exc: TypeError) -> InvalidArguments:
        return InvalidArguments(
            f"the arguments do not fit the task {self.name}{self._signature}: {exc}"
        )


def _job_signature(func: Callable[..., Any], pass_context: bool) -> inspect.Signature:
    """The function's signature as a job sees it: all by name, without the context."""
    signature = inspect.signature(func)
    parameters = list(signature.parameters.values())
    if pass_context:
        if not parameters or parameters[0].kind not in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        ):
            raise InvalidOption(
                "pass_context=True needs a first parameter for the context,"
                f" and {shown(func)} has none"
            )
        if parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
            parameters = parameters[1:]
    for parameter in parameters:
        if (
            parameter.kind is inspect.Parameter.POSITIONAL_ONLY
            and parameter.default is inspect.Parameter.empty
        ):
            raise InvalidOption(
                f"a task's arguments are passed by name, and parameter {parameter.name!r} of"
                f" {shown(func)} is positional-only"
            )
    return signature.replace(parameters=parameters)


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _required_names(signature: inspect.Signature) -> frozenset[str]:
    """The arguments without which a call by name fails."""
    parameters = signature.parameters.values()
    return frozenset(p.name for p in parameters if p.kind in _NAMED and p.default is p.empty)


def _accepted_names(signature: inspect.Signature) -> frozenset[str] | None:
    """The arguments that a call by name may have; None if it may have any (``**kwargs``)."""
    parameters = signature.parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters if p.kind in _NAMED)


def _by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            raise InvalidArguments(
                f"a job's arguments are passed by name, and {shown(value)} have none"
            )
        else:
            arguments[name] = value
    return arguments


class TaskRegistry:
    """Tasks by name and alias.

    ``builtins`` are found by name as long as no other task has it; they are not listed, and no
    other registry takes them up.
    """

    def __init__(self, builtins: Mapping[str, TaskDefinition] | None = None) -> None:
        self._by_name: dict[str, TaskDefinition] = {}
        self._builtins = builtins or {}

    def add(self, definition: TaskDefinition) -> None:
        """Register a task under its name and aliases. Raises `TaskAlreadyRegistered`."""
        names = (definition.name, *definition.aliases)
        for name in names:
            if names.count(name) > 1:
                raise TaskAlreadyRegistered(
                    f"the task {definition.name!r} has the name {name!r} twice: leave it out of its"
                    " aliases"
                )
            if name in self._by_name:
                raise TaskAlreadyRegistered(
                    f"a task named {name!r} is registered already ({self._origin(name)}):"
                    " give one of them another `name=`"
                )
        self._by_name.update(dict.fromkeys(names, definition))

    def add_alias(self, name: str, alias: str) -> None:
        """Let a registered task be found under one more name."""
        definition = self[name]
        checks.check_name("alias", alias)
        if alias in self._by_name:
            raise TaskAlreadyRegistered(
                f"a task named {alias!r} is registered already ({self._origin(alias)})"
            )
        self._by_name[alias] = definition

    def add_all(self, other: TaskRegistry, *, namespace: str) -> None:
        """Register another registry's tasks, all or none, as ``namespace:name``."""
        additions: dict[str, TaskDefinition] = {}
        renamed: dict[int, TaskDefinition] = {}
        for name, definition in other._by_name.items():
            new_name = f"{namespace}:{name}" if namespace else name
            if new_name in self._by_name:
                raise TaskAlreadyRegistered(
                    f"a task named {new_name!r} is registered already ({self._origin(new_name)})"
                )
            new = renamed.setdefault(id(definition), _moved(definition, namespace))
            additions[checks.check_name("name", new_name)] = new
        self._by_name.update(additions)

    def keeps_results(self, name: str) -> bool:
        """Whether the task of this name or alias is known, and keeps what it returns."""
        definition = self.get(name)
        return definition is not None and definition.result is not False

    def get(self, name: str) -> TaskDefinition | None:
        return self._by_name.get(name) or self._builtins.get(name)

    def __getitem__(self, name: str) -> TaskDefinition:
        definition = self.get(name)
        if definition is None:
            raise TaskNotFound(
                f"no task named {name!r} is registered: was the module that defines it imported?"
                " (see `import_paths`)"
            )
        return definition

    def known_names(self) -> list[str]:
        """Return every name under which `get` finds a task, in order."""
        return sorted({*self._by_name, *self._builtins})

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def _origin(self, name: str) -> str:
        known = self._by_name.get(name)
        func = known.func if known else None
        return f"{getattr(func, '__module__', '?')}.{getattr(func, '__qualname__', '?')}"


def _moved(definition: TaskDefinition, namespace: str) -> TaskDefinition:
    if not namespace:
        return definition
    return replace(
        definition,
        name=f"{namespace}:{definition.name}",
        aliases=tuple(f"{namespace}:{alias}" for alias in definition.aliases),
    )
