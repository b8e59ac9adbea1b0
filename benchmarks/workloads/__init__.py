"""The workloads in order."""

from __future__ import annotations

from benchmarks.workload import Workload
from benchmarks.workloads.backlog import Backlog
from benchmarks.workloads.cost import Cost
from benchmarks.workloads.defer import BatchDefer, DeferOneByOne
from benchmarks.workloads.drain import DrainConcurrently, DrainDefault, DrainThreads, NeverAnalyzed
from benchmarks.workloads.drivers import Drivers
from benchmarks.workloads.footprint import Footprint
from benchmarks.workloads.idle import IdleWorkers
from benchmarks.workloads.latency import Latency, Schedule
from benchmarks.workloads.lines import Lines
from benchmarks.workloads.locks import Locks
from benchmarks.workloads.pages import Pages
from benchmarks.workloads.partitions import ManyPartitions
from benchmarks.workloads.processes import Processes
from benchmarks.workloads.results import KeptResults
from benchmarks.workloads.retries import Retries
from benchmarks.workloads.sustained import Sustained
from benchmarks.workloads.timed import Timed
from benchmarks.workloads.waiting import Waiting
from benchmarks.workloads.watching import Watched

WORKLOADS: dict[str, Workload] = {
    workload.key: workload
    for workload in (
        DrainConcurrently(),
        DrainDefault(),
        DrainThreads(),
        DeferOneByOne(),
        BatchDefer(),
        Latency(),
        Backlog(),
        Locks(),
        Sustained(),
        Processes(),
        Schedule(),
        Footprint(),
        Cost(),
        NeverAnalyzed(),
        Timed(),
        Retries(),
        IdleWorkers(),
        Drivers(),
        Lines(),
        ManyPartitions(),
        KeptResults(),
        Waiting(),
        Pages(),
        Watched(),
    )
}
