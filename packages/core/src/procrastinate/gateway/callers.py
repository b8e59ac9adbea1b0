"""Flows on the connections of callers: see `procrastinate.storage.callers` for the rules."""

from __future__ import annotations

from typing import Any, TypeVar

from procrastinate import binders, drive
from procrastinate.connector import Binder, Executor, Rows
from procrastinate.drive import Flow, Request
from procrastinate.gateway.halves import Halves
from procrastinate.gateway.place import OwnPlace
from procrastinate.storage.callers import LookAgain, for_caller
from procrastinate.threads import in_thread

T = TypeVar("T")


class Callers:
    """Runs flows on connections that are not the app's own."""

    def __init__(self, halves: Halves, place: OwnPlace) -> None:
        self._halves = halves
        self._place = place
        self._is_first = True

    def keeps_jobs_of(self, connection: Any) -> bool:
        """Whether the jobs of a foreign connection stay in a connector that runs no SQL."""
        connector = self._halves.connector
        return not connector.runs_sql and connector.own_binder(connection) is None

    def _binder(self, connection: Any) -> Binder:
        return self._halves.connector.own_binder(connection) or binders.binder_of(connection)

    def run(self, flow: Flow[T], connection: Any, *, several: bool) -> T:
        """Run a flow on a caller's connection; ``several``: it takes several statements."""
        executor = binders.bound(self._binder(connection), connection)
        return self._run(flow, executor, several)

    def _run(self, flow: Flow[T], executor: Executor, several: bool) -> T:
        def run(request: Request) -> Rows:
            if isinstance(request, LookAgain):
                return [(self._place.anew(),)]
            return executor.execute(self._halves.statements(request))

        value = drive.run_steps(self._steps(flow, several), run)
        self._is_first = False
        return value

    def _steps(self, flow: Flow[T], several: bool) -> Flow[T]:
        return for_caller(flow, self._place.known, several=several, is_first=self._is_first)

    async def run_async(self, flow: Flow[T], connection: Any, *, several: bool) -> T:
        """Run a flow on a caller's connection; see `run`. A synchronous one runs in a thread."""
        binder = self._binder(connection)
        if binder.bind_async is None:
            call_async = binder.call_async or in_thread
            executor = binders.bound(binder, connection)
            value: T = await call_async(lambda: self._run(flow, executor, several))
            return value
        bound = binders.bound_async(binder, connection)

        async def run(request: Request) -> Rows:
            if isinstance(request, LookAgain):
                return [(await self._place.anew_async(),)]
            return await bound.execute(self._halves.statements(request))

        result = await drive.run_steps_async(self._steps(flow, several), run)
        self._is_first = False
        return result
