"""The parts of one run: made and connected here, and started by its shift."""

from __future__ import annotations

import random

from procrastinate.model.claiming.ahead import Ahead
from procrastinate.model.claiming.unknown_tasks import UnknownTasks
from procrastinate.worker.backlog.backlog import Backlog
from procrastinate.worker.claiming.claiming import Claiming
from procrastinate.worker.companions.vitals import Vitals
from procrastinate.worker.database.calls import Calls
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.database.places import Places
from procrastinate.worker.helpers.housekeeping import Housekeeping
from procrastinate.worker.helpers.minutes import Minutes
from procrastinate.worker.helpers.pausing import Paused, Pausing
from procrastinate.worker.running.past_errors import PastErrors
from procrastinate.worker.running.progress import Reports
from procrastinate.worker.running.slots import Slots
from procrastinate.worker.shift.terms import Terms
from procrastinate.worker.telling import Telling
from procrastinate.worker.writing.writer import Writer


class Crew:
    """The parts of one run. Each is made after those that it needs."""

    def __init__(self, terms: Terms, claiming_type: type[Claiming]) -> None:
        self._terms = terms
        options = terms.options
        self.calls = Calls(terms.gateway)
        self.partitions = terms.gateway.statements.partitions
        self._places = Places(self.partitions)
        self.outages = Outages(self.calls, self.partitions)
        self._ahead = Ahead(random.Random())
        keep = options.keep_throughput
        self.minutes = Minutes(self.calls, keep=keep) if keep else None
        self.telling = Telling(
            *(terms.observers, terms.worker.name, terms.worker_id, options.log_jobs),
            counting=self.minutes,
        )
        self.vitals = Vitals(terms.worker.name, options, registered_at=terms.registered_at)
        self.paused = Paused()
        # A job of an unknown task can wait for other workers only if there may be any (not in
        # memory), and if this worker stays to see it.
        waits_for_others = options.wait and self.calls.connector.runs_sql
        self._unknown = UnknownTasks() if waits_for_others else None
        self.claiming = self._make_claiming(claiming_type)
        self.writer = self._make_writer()
        self.reports = Reports(
            self.calls,
            terms.worker_id,
            self._places,
            self.outages,
            running=lambda: self.slots.all(),
        )
        self.slots = self._make_slots()
        self.backlog = self._make_backlog()
        self.pausing = self._make_pausing()
        self.housekeeping = self._make_housekeeping()

    def _make_claiming(self, claiming_type: type[Claiming]) -> Claiming:
        return claiming_type(
            self.calls,
            self._terms.worker_id,
            self._terms.options,
            stop=self._terms.stop,
            wake=self._terms.wake,
            trusted=self.vitals.trusted,
            ahead=self._ahead,
            unknown=self._unknown,
            places=self._places,
            outages=self.outages,
            paused=self.paused,
            keeps=self._terms.registry.keeps_results,
        )

    def _make_writer(self) -> Writer:
        return Writer(
            self.calls,
            self._terms.worker_id,
            self._terms.options.delete_jobs,
            self._places,
            self.outages,
            on_written=self._written,
            on_requeued=self.claiming.look_at,
            on_released=self.claiming.went_back,
            hand_over=self.claiming.hand_over,
            echoes=self.claiming.echoes,
            on_lost=lambda: self.housekeeping.look_for_losses(),
            on_refused_result=lambda entry: self.slots.after_refused_result(entry),
            keeps=self._terms.registry.keeps_results,
            telling=self.telling,
        )

    def _make_slots(self) -> Slots:
        return Slots(
            app=self._terms.app,
            registry=self._terms.registry,
            writer=self.writer,
            options=self._terms.options,
            worker=self._terms.worker,
            ahead=self._ahead,
            read_errors=PastErrors(self._terms.gateway),
            is_doubtful=self.vitals.doubtful,
            trust=self.vitals.trust,
            say=self.reports.say,
            partitions=self.partitions,
            unknown=self._unknown,
            on_ended=self._terms.on_ended,
            threads=self._terms.threads,
            telling=self.telling,
        )

    def _make_backlog(self) -> Backlog:
        return Backlog(
            self.slots,
            self.writer,
            concurrency=self._terms.options.concurrency,
            ahead=self._ahead,
            trust=self.vitals.trust,
            on_change=self.claiming.something_ended,
            on_look=self._terms.wake.set,
            paused=self.paused,
            telling=self.telling,
        )

    def _make_pausing(self) -> Pausing:
        return Pausing(
            self.calls,
            self.paused,
            self._terms.options.queues,
            interval=self._terms.options.fetch_job_polling_interval,
            on_paused=self.backlog.give_back_paused,
            on_resumed=self.claiming.look_at_everything,
            telling=self.telling,
        )

    def _make_housekeeping(self) -> Housekeeping:
        return Housekeeping(
            self.calls,
            self._terms.worker_id,
            self._terms.options,
            keeps=self._terms.registry.keeps_results,
            partitions=self.partitions,
            outages=self.outages,
            leases=self.backlog.leases,
            may_judge=self.vitals.may_judge,
            on_aborts=self.abort,
            on_lost=self.backlog.lose,
            telling=self.telling,
        )

    def _written(self) -> None:
        self.backlog.written()
        self.claiming.something_ended()

    def abort(self, ids: set[int]) -> None:
        """Abort jobs, also those whose claim is being answered: they are not known here yet."""
        self.backlog.abort(ids)
        self.claiming.heard_of_aborts(ids)
