"""When which process was ended, silent or forgotten: the part of the books about faults."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from chaos.records import Effect, Run, Terms, Trouble

Window = tuple[datetime, datetime]

SILENT = frozenset({Effect.STILL, Effect.AWAY})
#: A silence that ends lets its last moments be felt a little later.
AFTERMATH = timedelta(seconds=2)
WRITTEN_WITHIN = timedelta(seconds=10)  # from the end of a run to its record, in calm
#: A process may be killed while it tells the ledger that a run begins. The ledger's server goes on
#: with that row, so on a busy machine it may be written after the process was seen to be gone.
ROW_MAY_TAKE = timedelta(seconds=5)
NEAR = timedelta(seconds=20)


class Windows:
    """The troubles of a campaign, by the processes that they touch."""

    def __init__(self, troubles: Sequence[Trouble], terms: Terms) -> None:
        self._terms = terms
        self._everywhere = [each for each in troubles if each.processes is None]
        self._at: dict[str, list[Trouble]] = defaultdict(list)
        for trouble in troubles:
            for process in trouble.processes or ():
                self._at[process].append(trouble)
        self._silences: dict[str, list[Window]] = {}

    def _of(self, process: str) -> list[Trouble]:
        return self._everywhere + self._at.get(process, [])

    def explain(self, run: Run, until: datetime) -> bool:
        """Return whether a fault may have taken a run's job from its process before `until`.

        It must have begun before the run's end was surely written.
        """
        until = min(until, self._written_by(run) or until)
        return (
            any(
                Effect.ENDS in each.effects
                and each.began <= until
                and run.began <= each.ended + ROW_MAY_TAKE
                for each in self._of(run.process)
            )
            or any(
                end - begin >= self._terms.lets_go
                and begin <= until
                and run.began <= end + AFTERMATH
                for begin, end in self.silences(run.process)
            )
            or self._was_forgotten(run)
        )

    def _written_by(self, run: Run) -> datetime | None:
        """Return when the end of a run was surely written; None if it was not over."""
        if run.ended is None:
            return None
        latest = run.ended
        for each in sorted(self._of(run.process), key=lambda trouble: trouble.began):
            if each.effects and each.began <= latest + WRITTEN_WITHIN:
                latest = max(latest, each.ended)
        return latest + WRITTEN_WITHIN

    def ended(self, process: str, at: datetime) -> bool:
        """Return whether a fault has ended a process that was gone at a moment."""
        return any(Effect.ENDS in each.effects and each.began <= at for each in self._of(process))

    def _was_forgotten(self, run: Run) -> bool:
        """Return whether the server may have forgotten the claim of a run."""
        margin = self._terms.forgotten
        return any(
            Effect.FORGETS in each.effects
            and each.began - margin <= run.began <= each.ended + margin
            for each in self._of(run.process)
        )

    def around(self, run: Run) -> str:
        """Return the troubles of a run's process near its time, for people."""
        near = [
            f"{each.name} {each.began:%H:%M:%S.%f} to {each.ended:%H:%M:%S.%f}"
            for each in self._of(run.process)
            if each.began - NEAR <= run.began <= each.ended + NEAR
        ]
        return f"; troubles near it: {', '.join(near) or 'none'}"

    def silences(self, process: str) -> list[Window]:
        """Return when a process could not beat. A short pause between two does not count as one."""
        if process not in self._silences:
            windows = [
                (each.began, each.ended) for each in self._of(process) if each.effects & SILENT
            ]
            self._silences[process] = merged(windows, self._terms.reconnecting)
        return self._silences[process]

    def hold_up(self, since: datetime, run: Run) -> bool:
        """Return whether a fault may have delayed the begin of a run, from `since` on."""
        margin = self._terms.reconnecting
        return any(
            each.began <= run.began and since <= each.ended + margin
            for each in self._of(run.process)
            if each.effects
        )


def merged(windows: Iterable[Window], gap: timedelta) -> list[Window]:
    """Return windows in order; those with less than `gap` between them are one."""
    found: list[Window] = []
    for begin, end in sorted(windows):
        if found and begin - found[-1][1] < gap:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found
