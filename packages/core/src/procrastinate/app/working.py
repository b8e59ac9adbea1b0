"""The part of an App that runs workers.

What only workers need is imported when a worker is asked for: programs that only defer jobs do
without it, and without asyncio.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack, cast

from procrastinate.app.blueprint import Blueprint
from procrastinate.errors import InvalidOption, LoadFromPathError
from procrastinate.gateway import Gateway
from procrastinate.model import checks
from procrastinate.model.text.failure import headline_of
from procrastinate.model.text.printable import shown

if TYPE_CHECKING:
    from procrastinate.app.app import App
    from procrastinate.app.opening import OpenedAsync
    from procrastinate.drive import Flow
    from procrastinate.model.liveness.guests import OnFailure
    from procrastinate.model.periodic import Periodic
    from procrastinate.model.worker_options import WorkerArguments, WorkerOptions
    from procrastinate.storage.periodic import Settled
    from procrastinate.worker.worker import Worker


class WorkingApp(Blueprint):
    """The part of an App that runs workers."""

    _gateway: Gateway
    import_paths: tuple[str, ...]
    worker_defaults: dict[str, Any]
    periodic_defaults: dict[str, float]

    if TYPE_CHECKING:

        def open_async(self, pool: Any = None) -> OpenedAsync[App]: ...

    def perform_import_paths(self) -> None:
        """Import the modules of ``import_paths``, so that their tasks are registered.

        Raises `LoadFromPathError` naming the module that cannot be imported.
        """
        for path in self.import_paths:
            try:
                importlib.import_module(path)
            except Exception as exc:
                raise LoadFromPathError(
                    f"import path {shown(path)} cannot be imported: {headline_of(exc)}"
                ) from exc

    def worker(
        self, *, on_failure: OnFailure | None = None, **options: Unpack[WorkerArguments]
    ) -> Worker:
        """Return a worker for your own process: ``async with app.worker():``, or ``await`` its run.

        The options and their defaults are those of `WorkerOptions`. The app must be open when the
        worker begins. In a block, ``on_failure`` says what follows if it ends by itself:

        - ``"restart"`` (the default): it is started again after a pause of 1 to 16 seconds, 5 times
          within an hour at most. After that it stays ended, and `Worker.failure` says why.
        - ``"cancel"``: the task that entered the block is cancelled, and leaving raises
          `WorkerFailed`. A server may go on without that task: give it ``"terminate"``.
        - ``"terminate"``: the process gets SIGTERM.
        - a function, plain or ``async def``, which is given the exception.

        Raises `InvalidOption`, `SyncConnectorConfigurationError`, `LoadFromPathError`.
        """
        from procrastinate.model.liveness.guests import check_for_block, check_on_failure

        checked = self._worker_options(options)
        given = frozenset(options)
        if on_failure is not None:
            on_failure = check_on_failure(on_failure)
            check_for_block(checked, given)
        return self._new_worker(checked, given=given, on_failure=on_failure)

    async def run_worker_async(self, **options: Unpack[WorkerArguments]) -> None:
        """Run a worker until it is told to stop (or, with ``wait=False``, until no job is ready).

        The options and their defaults are those of `WorkerOptions`. The app must be open. SIGINT
        and SIGTERM stop the worker only if nothing else handles them, and are given back at its
        end. If it raises, it also logs why at ERROR, because a task's exception may go unseen.
        In a server or beside other work, use `worker`.

        Raises `InvalidOption`, `SyncConnectorConfigurationError`, `SchemaError`.
        """
        try:
            worker = self._new_worker(self._worker_options(options))
        except Exception as exc:
            from procrastinate.worker.process.keeping import log_refusal

            log_refusal(exc)
            raise
        await worker.run()

    def run_worker(self, **options: Unpack[WorkerArguments]) -> None:
        """Open the app, run a worker, and close the app.

        The process is the worker's own: SIGINT and SIGTERM stop it, whatever handled them before.
        The options and errors are those of `run_worker_async`, and `ConnectionFailed`.
        """
        # Not at the top, because programs that only defer need neither it nor asyncio.
        from procrastinate.worker.process import own_loop

        checked = self._worker_options(options)
        self._gateway.async_connector()

        async def run() -> None:
            async with self.open_async():
                await self._new_worker(checked).run_as_program()

        own_loop.run(run())

    def _worker_options(self, options: Mapping[str, Any]) -> WorkerOptions:
        from procrastinate.model.worker_options import renamed, worker_options

        return worker_options(**{**self.worker_defaults, **renamed(options)})

    def _new_worker(self, options: WorkerOptions, **about: Any) -> Worker:
        from procrastinate.worker.worker import Worker

        self.perform_import_paths()
        return Worker(
            app=cast("App", self),
            gateway=self._gateway,
            registry=self._registry,
            options=options,
            periodics=self._periodics_to_defer(),
            **about,
        )

    def _periodics_to_defer(self) -> list[Periodic]:
        from procrastinate.app.periodic import for_worker

        return [
            for_worker(each, self._gateway.connector, self.periodic_defaults)
            for each in self._periodics
        ]

    def _defer_due_flow(self) -> Flow[list[Settled]]:
        """Return a flow that defers, by the server's clock, what workers would have by now."""
        from procrastinate.storage.periodic import defer_due

        return defer_due(self._periodics_to_defer())


def checked_worker_defaults(defaults: Any) -> dict[str, Any]:
    """Return checked defaults under the options' present names. Raises `InvalidOption`."""
    if defaults is None:
        return {}
    from procrastinate.model.worker_options import renamed, worker_options

    given: dict[str, Any] = checks.guarded(_options_by_name, "worker_defaults", defaults)
    known = renamed(given)
    options = worker_options(**known)
    return {name: getattr(options, name) for name in known}


def _options_by_name(option: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise InvalidOption(f"{option} must be a dict, not {shown(given)}")
    for name in given:
        if not isinstance(name, str):
            raise InvalidOption(f"{option} must have names of options, not {shown(name)}")
    return {str.__str__(name): given[name] for name in given}


def checked_periodic_defaults(defaults: Any) -> dict[str, float]:
    """Return an app's checked ``periodic_defaults``. Raises `InvalidOption`."""
    if defaults is None:
        return {}
    from procrastinate.app.periodic import periodic_defaults

    return periodic_defaults(defaults)
