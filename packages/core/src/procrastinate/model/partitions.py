"""Which partition a job is in: by its key, and by its id.

A database has 1 partition, or 64. With 64, each id ends in its partition: it is ``n * 64 + k``,
where k is the partition's place in `VALUES`. Jobs from before the database was distributed keep
their ids, which say nothing: they are those up to ``boundary_id``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from procrastinate.errors import InvalidOption
from procrastinate.model.job import Job
from procrastinate.model.text.printable import shown

MANY = 64
#: The partitions of a distributed database. Citus hashes each of these numbers to another one of
#: 64 shards; of 0 to 63, some would share a shard, and other shards would stay empty.
VALUES = (
    *(60, 8, 82, 1, 31, 88, 79, 24, 10, 92, 48, 109, 5, 112, 50, 166),
    *(4, 7, 17, 172, 16, 96, 170, 85, 36, 89, 19, 0, 37, 45, 101, 3),
    *(113, 52, 62, 99, 136, 168, 46, 28, 6, 66, 70, 21, 83, 39, 43, 13),
    *(2, 351, 27, 95, 58, 149, 41, 179, 9, 80, 59, 22, 12, 11, 44, 18),
)


@dataclass(frozen=True, slots=True)
class Partitions:
    """The partitions of a database. ``count`` is 1 or `MANY`.

    ``on_cluster`` says whether they may be on several nodes. A plain server has them all.
    """

    count: int = 1
    boundary_id: int = 0
    on_cluster: bool = False

    @property
    def are_many(self) -> bool:
        """Whether the database is a distributed one."""
        return self.count > 1

    @property
    def values(self) -> Sequence[int]:
        """All partitions."""
        return VALUES if self.are_many else (0,)

    def of_key(self, key: str) -> int:
        """Return the partition of the jobs with a key, as ``storage/functions.sql`` computes it.

        The key of a job is its partition key, else its lock, else its queueing lock.
        """
        if not self.are_many:
            return 0
        import hashlib  # not at the top: few databases are distributed

        return VALUES[hashlib.sha256(key.encode()).digest()[0] % MANY]

    def of_id(self, job_id: int) -> int | None:
        """Return the partition of a job, or None if its id does not tell."""
        if not self.are_many:
            return 0
        return VALUES[job_id % MANY] if job_id > self.boundary_id else None

    def of_job(self, job: Job) -> int:
        """Return the partition of a job, also of an older one, which is there by its lock."""
        partition = self.of_id(job.id)
        if partition is not None:
            return partition
        key = job.queueing_lock if job.lock is None else job.lock
        return 0 if key is None else self.of_key(key)

    def check_move(self, job_id: int, partition: int, lock: str | None) -> None:
        """Raise `InvalidOption` if a job is to get a lock that belongs to another partition.

        A job cannot leave its partition, and would not see who holds the lock.
        """
        if lock is not None and self.of_key(lock) != partition:
            raise InvalidOption(
                f"job {job_id} is in partition {partition}, and the lock {shown(lock)} belongs to"
                f" partition {self.of_key(lock)}: a job cannot change its partition, so defer it"
                " anew with that lock"
            )


ONE = Partitions()
