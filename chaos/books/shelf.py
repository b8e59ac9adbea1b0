"""A campaign, with its runs and jobs found by their ids: what the rules read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from chaos.books.windows import Windows
from chaos.records import PAUSE, Campaign, Run, Spec, Stored


class Books:
    """A campaign, with its runs and jobs found by their ids."""

    def __init__(self, campaign: Campaign) -> None:
        self.asked = campaign.asked
        self.stored = {job.id: job for job in campaign.stored}
        self.by_number = {job.n: job for job in campaign.stored if job.n is not None}
        self.spec_of: Mapping[int, Spec] = {each.spec.n: each.spec for each in campaign.asked}
        self.deaths = campaign.deaths
        self.troubles = campaign.troubles
        self.terms = campaign.terms
        self.waits = campaign.waits
        self.windows = Windows(campaign.troubles, campaign.terms)
        self.runs: dict[int, list[Run]] = defaultdict(list)
        for run in sorted(campaign.runs, key=lambda run: run.began):
            self.runs[run.job_id].append(run)

    def end_of(self, run: Run) -> datetime | None:
        """Return when a run was over: at its row, or at its process's death. None: unknown."""
        return run.ended or self.deaths.get(run.process)

    def was_paused(self, queue: str, since: datetime, until: datetime) -> bool:
        """Return whether a pause may have kept a queue's jobs from running in a length of time.

        Pauses without an answer count too: for their queues, it is not known which.
        """
        return any(
            each.began <= until and since <= each.ended + self.terms.paused
            for each in self.troubles
            if each.kind == PAUSE and (each.pause is None or each.pause.queue == queue)
        )

    def spec(self, job: Stored) -> Spec | None:
        """Return what a job was drawn as; None for a tick."""
        return None if job.n is None else self.spec_of.get(job.n)
