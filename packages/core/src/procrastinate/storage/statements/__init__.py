"""The SQL statements by name, as the ``.sql`` files of ``storage/sql`` say them.

The language of these files is explained in `procrastinate.storage.statements.templates`.
``python -m procrastinate.storage.statements NAME`` prints a statement with all that it includes.

``%(partition)s`` in a text is the partition of the jobs and locks that a statement is about. If
its request does not name one (see `procrastinate.drive.at`), it is that of `Statements.at`.
``%(partitions)s`` is the same in a list, or all partitions of the database if neither names one.

A request that defers jobs on a caller's connection may say which tables the app has seen
(``seen_table``): then the text has the condition `SEEN`, and with other tables nothing is inserted
and no row comes back.

``{schema}.`` stands for the schema of the tables, or for nothing. ``{held}`` stands for the
statuses of a job that its worker holds. ``{known}`` stands for the condition that a worker knows a
job's task, which is in the text only if it is told ``unknown_names``: most have no need of it, and
it costs time in each claim. ``{unpaused ALIAS}`` stands in the same way for the condition that no
pause covers the queue of a job, in a text that is told ``paused``.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from procrastinate.connector import GENERIC, Query, Value
from procrastinate.connector_options import check_schema
from procrastinate.drive import NO_SETTINGS, Prepare, Request, Script
from procrastinate.model.job import HELD
from procrastinate.model.partitions import ONE, Partitions
from procrastinate.model.queue_names import EVERY_QUEUE, SPARED
from procrastinate.storage.statements import templates

#: The statuses of a job that its worker holds: what `{held}` in a text stands for.
HELD_STATUSES = ", ".join(f"'{status.value}'" for status in HELD)
#: What `get_place` said. (As texts that are put together and compared it took 20 microseconds.)
SEEN = """
where '{schema}.procrastinate_jobs'::regclass::oid = %(seen_table)s::bigint::oid
    and current_database() = %(seen_database)s::text
    and pg_postmaster_start_time() = %(seen_start)s::timestamptz"""
KNOWN = " and job.task_name <> all(%(unknown_names)s::text[])"
#: See `procrastinate.model.queues.are_pauses_of`.
UNPAUSED = (
    " and {alias}.queue_name <> all(%(paused)s::text[])"
    f" and ({{alias}}.queue_name = '{SPARED}' or '{EVERY_QUEUE}' <> all(%(paused)s::text[]))"
)
#: Parameters that decide about the text, or are not for it.
_CHOOSING = frozenset({"unknown_names", "seen_table", "paused", "partition"})
UNPAUSED_ALIASES = ("job", "best")
PATIENCE_MS = 500  # milliseconds that an ending waits for another transaction
AWAKE = {"idle_in_transaction_session_timeout": "10000"}  # milliseconds
#: What a statement may need of a session that users have set up otherwise. A caller's own
#: transaction keeps its settings: what may run there has to do without.
SETTINGS: Mapping[str, Mapping[str, str]] = {
    # Our statements are short: compiling one takes ten times as long as running it.
    "jit": {"jit": "off"},
    # They are written for READ COMMITTED. At another level one in ten failed.
    "isolation": {"transaction_isolation": "read committed"},
    # A role may have switched these off. Without them, statements read whole tables.
    "plans": {"enable_indexscan": "on", "enable_nestloop": "on", "enable_sort": "on"},
    "array_nulls": {"array_nulls": "on"},
    # What a crash of the server loses is only that the jobs have been claimed: they still wait. (It
    # stays with a cluster's coordinator. A node, which may crash alone, forgets no claim.)
    "asynchronous": {"synchronous_commit": "off"},
    # For a walk through jobs in order of id. The planner would begin it by sorting all of them: in
    # a table that was never analyzed, it takes one job in 200 to be of the partition.
    "in_order": {"enable_sort": "off"},
    # In milliseconds. A worker that freezes in the middle does not keep locks from all the others.
    "awake": AWAKE,
    # Besides, what a user's open transaction holds (a twin with the same queueing lock, a job about
    # to be cancelled) is not waited for: others' endings would wait too.
    "patience": {"lock_timeout": str(PATIENCE_MS), **AWAKE},
    # For what is sent often and for few jobs, of which planning is half of the work: connectors may
    # keep its plan, which must not depend on the values, nor on what was in the tables at first.
    "prepared": {"plan_cache_mode": GENERIC, "enable_seqscan": "off"},
    "idle": {"idle_in_transaction_session_timeout": "0"},  # milliseconds: no limit
    # For what reads all partitions, and little of each. A cluster would open up to 16 connections
    # to each of its nodes for it, and keep them: a worker's start took 0.6 s of the nodes' CPU.
    "one_connection": {"citus.max_adaptive_executor_pool_size": "1"},
}
#: What every statement has that does not say `only`, besides what it names. (It takes the server 4
#: microseconds to set all this.)
EVERYWHERE = ("jit", "isolation", "plans")
#: A cluster chooses the node by the partition, so a plan is kept only if its text names one. (It
#: plans an INSERT by the other values, too, and refuses to do it without them.) What is kept is the
#: choice of the node, for any number of jobs: the node plans the rest, each time.
OF_KEPT_PLANS = frozenset(SETTINGS["prepared"])
ON_CLUSTERS_ONLY = frozenset(SETTINGS["one_connection"])
_INSERTS = "insert into"
_PARTITION = "%(partition)s"
_AS_JSON = re.compile(r"jsonb_array_elements_text\(%\((\w+)\)s::text::jsonb\)")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with all that it includes: as it is sent, but for its markers, and commented."""

    name: str
    kind: str
    text: str
    commented: str
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Made:
    """What a query is made of: the text for a schema, and whether it is about partitions."""

    text: str
    settings: Mapping[str, str]
    takes_more: bool = True  # settings, where a call has some
    of_partition: bool = False
    of_several: bool = False
    names_partition: bool = False  # in its text, which differs from one to the next
    says_patience: bool = False
    as_json: tuple[str, ...] = ()  # parameters with lists that come as JSON


class Statements:
    """Makes queries of requests, for a schema, its database's partitions, and one of them."""

    def __init__(
        self,
        schema: str | None = None,
        partitions: Partitions = ONE,
        *,
        chooses_plans: bool = True,
    ) -> None:
        """For ``chooses_plans`` see the connector."""
        self.schema = schema
        self._chooses_plans = chooses_plans
        self.partitions = partitions
        self.distributed = partitions.are_many
        self.partition = 0
        self._all = list(partitions.values)
        self._prefix = "" if schema is None else f"{quoted(schema)}."
        self._made: dict[str, _Made] = {}
        self._naming: dict[tuple[str, Value], str] = {}  # texts that name a partition

    def at(self, partition: int) -> Statements:
        """Return the same for the jobs and locks of another partition."""
        other = copy.copy(self)
        other.partition = partition
        other._all = [partition]
        return other

    def __call__(self, request: Request, more: Mapping[str, str] = NO_SETTINGS) -> Query:
        """Return the query of a request, with ``more`` settings besides its own."""
        name, params = request.name, request.params
        if not more and request.settings is NO_SETTINGS and _CHOOSING.isdisjoint(params):
            made = self._made.get(name)
            if made is not None and not (made.of_partition or made.of_several):
                return Query(name, made.text, params, made.settings)
        key = name
        if "unknown_names" in params:
            key = f"{name} known"
        elif "seen_table" in params:
            key = f"{name} seen"
        if "paused" in params:
            key += " paused"
        made = self._made.get(key) or self._make(key, request)
        settings = made.settings
        if (more or request.settings) and made.takes_more:
            asked = request.settings
            if made.names_partition:
                asked = _without(OF_KEPT_PLANS, asked)
            settings = {**settings, **asked, **more}
        text = made.text
        if made.of_partition:
            params = {"partition": self.partition, **params}
            if made.names_partition:
                text, params = self._for_one(key, text, params)
        elif made.of_several:
            params = {**params, "partitions": self._named(params) or self._all}
        elif "partition" in params:
            params = {key: value for key, value in params.items() if key != "partition"}
        for list_name in made.as_json:
            if params.get(list_name) is not None:
                params = {**params, list_name: json.dumps(params[list_name])}
        if made.says_patience:
            params = {**params, "lock_timeout": settings["lock_timeout"]}
        return Query(name, text, params, settings)

    def _for_one(
        self, key: str, text: str, params: Mapping[str, Value]
    ) -> tuple[str, dict[str, Value]]:
        """Return the text with the partition in it, and the other parameters."""
        place = key, params["partition"]
        naming = self._naming.get(place)
        if naming is None:
            naming = self._naming[place] = text.replace(_PARTITION, str(place[1]))
        return naming, {name: params[name] for name in params if name != "partition"}

    @staticmethod
    def _named(params: Mapping[str, Value]) -> list[int]:
        """Return the partition that a request names, if it does."""
        partition = params.get("partition")
        return [partition] if isinstance(partition, int) else []

    def under(self, settings: Mapping[str, str]) -> Prepare:
        """Return the same, with these settings for each query."""
        return functools.partial(self, more=settings)

    def _make(self, key: str, request: Request) -> _Made:
        if isinstance(request, Script):
            return _Made(self.render(request.text), NO_SETTINGS)
        statement = (load_distributed if self.distributed else load)()[request.name]
        known = KNOWN if "unknown_names" in request.params else ""
        text = statement.text.replace("{known}", known)
        for alias in UNPAUSED_ALIASES:
            unpaused = UNPAUSED.format(alias=alias) if "paused" in request.params else ""
            text = text.replace(f"{{unpaused {alias}}}", unpaused)
        if "seen_table" in request.params:
            text += SEEN
        text = self.render(text)
        of_partition = _PARTITION in text
        settings = self._settings_of(
            statement, may_keep=self._chooses_plans and of_partition and _INSERTS not in text
        )
        made = _Made(
            text,
            settings,
            takes_more=bool(statement.settings),
            of_partition=of_partition,
            names_partition=self.partitions.on_cluster and settings.keys() >= OF_KEPT_PLANS,
            of_several="%(partitions)s" in text,
            says_patience="%(lock_timeout)s" in text,
            as_json=tuple(_AS_JSON.findall(text)),
        )
        self._made[key] = made
        return made

    def _settings_of(self, statement: Statement, *, may_keep: bool) -> Mapping[str, str]:
        if not self.partitions.on_cluster:
            return _without(ON_CLUSTERS_ONLY, statement.settings)
        return statement.settings if may_keep else _without(OF_KEPT_PLANS, statement.settings)

    def render(self, text: str) -> str:
        """Return SQL with this schema in the place of its markers."""
        text = text.replace("{schema}.", self._prefix)
        return text.replace("{schema_name}", self._prefix.rstrip("."))


def _without(names: frozenset[str], settings: Mapping[str, str]) -> Mapping[str, str]:
    if names.isdisjoint(settings):
        return settings
    return {name: settings[name] for name in settings if name not in names}


def quoted(schema: str) -> str:
    """Return a schema's name as an SQL identifier. Raises `InvalidOption` if it cannot be one."""
    return f'"{check_schema(schema)}"'


@functools.cache
def load() -> Mapping[str, Statement]:
    """Return all statements by name."""
    return parsed(_texts())


@functools.cache
def load_distributed() -> Mapping[str, Statement]:
    """Return all statements by name, as a distributed database can run them."""
    return parsed(_texts(), distributed=True)


def _texts() -> list[str]:
    from pathlib import Path  # not at the top: it takes a twentieth of the package's import

    folder = Path(__file__).parent.parent / "sql"
    return [file.read_text("utf-8") for file in sorted(folder.glob("*.sql"))]


class Library(Mapping[str, Statement]):
    """Statements by name. Each is put together when it is asked for: most programs need a few.

    To ask for one that makes no sense raises ValueError.
    """

    def __init__(
        self, sections: Mapping[str, templates.Section], fragments: Mapping[str, templates.Section]
    ) -> None:
        self._sections = sections
        self._fragments = fragments
        self._made: dict[str, Statement] = {}

    def __getitem__(self, name: str) -> Statement:
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = _statement(self._sections[name], self._fragments)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._sections)

    def __len__(self) -> int:
        return len(self._sections)


def parsed(texts: Sequence[str], *, distributed: bool = False) -> Library:
    """Return the statements of these files. Raises ValueError for what makes no sense in them."""
    sections: dict[str, templates.Section] = {}
    instead: dict[str, templates.Section] = {}
    for text in texts:
        for each in templates.sections(text.replace("{held}", HELD_STATUSES)):
            home = instead if each.is_distributed else sections
            if each.name in home:
                raise ValueError(f"two statements are called {each.name}")
            home[each.name] = each
    fragments = {name: each for name, each in sections.items() if not each.kind}
    if instead.keys() - fragments.keys():
        raise ValueError(f"no fragments, or distributed ones only: {sorted(instead)}")
    if distributed:
        fragments |= instead
    return Library({name: each for name, each in sections.items() if each.kind}, fragments)


def _statement(section: templates.Section, fragments: Mapping[str, templates.Section]) -> Statement:
    commented = templates.expanded(section, fragments)
    text = templates.without_comments(commented)
    names = section.settings
    names = names[1:] if names[:1] == ("only",) else (*EVERYWHERE, *names)
    settings: dict[str, str] = {}
    for name in names:
        if name not in SETTINGS:
            raise ValueError(f"{section.name} has the setting {name}, which SETTINGS lacks")
        settings |= SETTINGS[name]
    return Statement(section.name, section.kind, text, commented, settings)
