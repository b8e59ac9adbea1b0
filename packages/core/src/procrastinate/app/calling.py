"""Deferring a job and waiting for its result, in one call."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from procrastinate.app.waiting import Timeout, Wait, until_ended, until_ended_async
from procrastinate.errors import ConnectorException, InvalidOption
from procrastinate.model.endings import ended
from procrastinate.model.task import TaskDefinition

if TYPE_CHECKING:
    from procrastinate.app.deferring import JobDeferrer

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")

#: The options of `call`, which stand beside the arguments of the task.
_OWN = ("timeout", "allow_in_worker")


class Calling(Generic[P, R]):
    """What a task and a configured one have in common: ``call``.

    A checker cannot know an option beside the arguments of a function. So it checks the arguments
    only if no option is given.
    """

    @abstractmethod
    def _deferrer(self) -> JobDeferrer[P, R]: ...

    # The first of each pair is for `async def` tasks: their result is what the coroutine returns.
    @overload
    def call(self: Calling[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    def call(
        self: Calling[..., Coroutine[Any, Any, T]], *, timeout: Timeout, **kwargs: Any
    ) -> T: ...

    @overload
    def call(
        self: Calling[..., Coroutine[Any, Any, T]], *, allow_in_worker: bool, **kwargs: Any
    ) -> T: ...

    @overload
    def call(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def call(self, *, timeout: Timeout, **kwargs: Any) -> R: ...

    @overload
    def call(self, *, allow_in_worker: bool, **kwargs: Any) -> R: ...

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Defer one job, wait until it has ended, and return its result.

        ``timeout`` and ``allow_in_worker`` are those of `Task.wait_for`, and stand beside the
        task's arguments. If the time is over the job stays, and the error names its id.

        Raises as `Task.wait_for` and `JobDeferrer.defer` do. Raises `InvalidOption` for a task that
        has a parameter named like one of the two options, and with ``connection=`` or inside of a
        transaction of Django's: a job that is not committed cannot end.
        """
        deferrer = self._deferrer()
        wait = _wait_of(deferrer, kwargs)
        wait.check_thread()
        if deferrer._gateway.is_in_transaction(None):
            raise _not_committed()
        job_id = deferrer.defer(*args, **kwargs)
        with naming(job_id):
            job = until_ended(deferrer._gateway, job_id, wait)
        return ended.value_of(job)

    @overload
    async def call_async(
        self: Calling[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    async def call_async(
        self: Calling[..., Coroutine[Any, Any, T]], *, timeout: Timeout, **kwargs: Any
    ) -> T: ...

    @overload
    async def call_async(
        self: Calling[..., Coroutine[Any, Any, T]], *, allow_in_worker: bool, **kwargs: Any
    ) -> T: ...

    @overload
    async def call_async(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    async def call_async(self, *, timeout: Timeout, **kwargs: Any) -> R: ...

    @overload
    async def call_async(self, *, allow_in_worker: bool, **kwargs: Any) -> R: ...

    async def call_async(self, *args: Any, **kwargs: Any) -> Any:
        """Defer one job, wait until it has ended, and return its result; see `call`."""
        deferrer = self._deferrer()
        wait = _wait_of(deferrer, kwargs)
        if await deferrer._gateway.is_in_transaction_async(None):
            raise _not_committed()
        job_id = await deferrer.defer_async(*args, **kwargs)
        with naming(job_id):
            job = await until_ended_async(deferrer._gateway, job_id, wait)
        return ended.value_of(job)


@contextmanager
def naming(job_id: int) -> Iterator[None]:
    """Let an error of a wait say that the job is there: to defer it again would run it twice."""
    try:
        yield
    except ConnectorException as exc:
        exc.args = (f"job {job_id} is deferred, but the wait for it failed: {exc}", *exc.args[1:])
        raise


def _wait_of(deferrer: JobDeferrer[..., Any], kwargs: dict[str, Any]) -> Wait:
    """Take the options of `call` out of the arguments; check them, and that a wait can end."""
    options = deferrer.options
    if options.definition is not None:
        _check_own_names_are_free(options.definition)
        check_keeps_results(options.definition)
    if options.connection is not None:
        raise _not_committed()
    given = {name: kwargs.pop(name) for name in _OWN if name in kwargs}
    wait = Wait.of(given.get("timeout"), given.get("allow_in_worker", False))
    wait.check_queue(options.queue)
    return Wait(wait.timeout, allow_in_worker=True)  # the queue is known to be another one


def _not_committed() -> InvalidOption:
    return InvalidOption(
        "call() cannot wait for a job that is not committed: with connection=, or in a transaction"
        " such as Django's atomic() and ATOMIC_REQUESTS, defer(), commit, and then wait with"
        " wait_for(id)"
    )


def _check_own_names_are_free(definition: TaskDefinition) -> None:
    for name in _OWN:
        if definition.has_parameter(name):
            raise InvalidOption(
                f"task {definition.name} has a parameter {name!r} itself, so call() could not tell"
                " it from its own: write `id = task.defer(...)` and then `task.wait_for(id,"
                f" {name}=...)`"
            )


def check_keeps_results(definition: TaskDefinition) -> None:
    """Raise `ResultNotKept` for a task that was not registered with ``result=``."""
    if not definition.result:
        raise ended.not_kept_by(definition.name)
