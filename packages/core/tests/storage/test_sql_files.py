"""The ``.sql`` files, their flat forms for review, and how a request becomes a query."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from procrastinate.drive import Flow, Limit, Request, Script, at, run
from procrastinate.errors import ConnectorException
from procrastinate.model.endings.outcome import SUCCEEDED
from procrastinate.model.job import Job, Status
from procrastinate.model.partitions import MANY, ONE, Partitions
from procrastinate.storage.finish import Ended, settle
from procrastinate.storage.statements import (
    EVERYWHERE,
    KNOWN,
    PATIENCE_MS,
    SETTINGS,
    UNPAUSED,
    UNPAUSED_ALIASES,
    Statements,
    load,
    load_distributed,
    parsed,
    templates,
)
from procrastinate.storage.statements.__main__ import files, flat

FOLDER = Path(__file__).parents[2] / "src/procrastinate/storage/sql"
RENEW = "python -m procrastinate.storage.statements --renew"


def test_what_is_reviewed_is_what_is_sent() -> None:
    """The flat files are those that the sources make."""
    kept = {file.name: file.read_text("utf-8") for file in (FOLDER / "flat").glob("*.sql")}
    made = files()
    differing = sorted(name for name in kept | made if kept.get(name) != made.get(name))
    assert not differing, f"run `{RENEW}` and review what has changed in {', '.join(differing)}"


@pytest.mark.parametrize("schema", [None, "other schema"])
@pytest.mark.parametrize("unknown_names", [[], ["a"], None])
@pytest.mark.parametrize("paused", [["mail"], None])
def test_a_query_is_its_flat_file_without_comments(
    schema: str | None, unknown_names: list[str] | None, paused: list[str] | None
) -> None:
    params = {} if unknown_names is None else {"unknown_names": unknown_names}
    params |= {} if paused is None else {"paused": paused}
    for name, statement in load().items():
        text = "\n".join(
            line
            for line in flat(statement).splitlines()
            if line and not line.lstrip().startswith("--")
        )
        sent = Statements(schema)(Request(name, **params)).sql
        for alias in UNPAUSED_ALIASES:
            unpaused = "" if paused is None else UNPAUSED.format(alias=alias)
            text = text.replace(f"{{unpaused {alias}}}", unpaused)
        assert text.replace("{known}", "" if unknown_names is None else KNOWN).replace(
            "{schema_name}", "" if schema is None else f'"{schema}"'
        ) == sent.replace(f'"{schema}".', "")


def test_only_what_looks_for_the_next_job_of_a_line_or_of_a_partition_knows_of_pauses() -> None:
    """What else is claimed comes from queues that the claim names."""
    marked = {name for name, each in load().items() if "{unpaused " in each.text}
    assert marked == {
        name for name in load() if re.match("claim_(full|level)|hand_over|sweep", name)
    }


def test_only_statements_with_the_marker_know_of_unknown_names() -> None:
    marked = {name for name, each in load().items() if "{known}" in each.text}
    assert marked == {
        name for name in load() if re.match("claim_|any_ready|hand_over|make_slots|sweep", name)
    }


# The sources


def test_every_fragment_is_used_with_arguments_that_it_takes() -> None:
    texts = [file.read_text("utf-8") for file in FOLDER.glob("*.sql")]
    sections = [each for text in texts for each in templates.sections(text)]
    fragments = {each.name for each in sections if not each.kind}
    assert len(fragments) > 20
    taken: dict[str, set[str]] = {}  # by either text, the usual one or the distributed one
    for each in sections:
        taken.setdefault(each.name, set()).update(re.findall(r"(?:\{>|=)(\w+)", each.text))
    used = Counter[str]()
    for each in sections:
        for included, given in re.findall(r'\{>(\w+)((?:\s+\w+=(?:\w+|"[^"]*"))*)', each.text):
            values = dict(re.findall(r'(\w+)=(\w+|"[^"]*")', given))
            used.update({included, *values.values()} & fragments)
            if included in fragments:
                wrong = values.keys() - taken[included]
                assert not wrong, f"{each.name}: {included} takes no {wrong}"
    assert fragments == used.keys()


def test_a_fragment_stands_in_the_file_that_uses_it_or_in_the_one_for_several() -> None:
    """Except at the gates: a claim is built of the parts that locks.sql explains."""
    texts = {file.stem: file.read_text("utf-8") for file in FOLDER.glob("*.sql")}
    homes = {
        each.name: stem
        for stem, text in texts.items()
        for each in templates.sections(text)
        if not each.kind
    }
    users: dict[str, set[str]] = {name: set() for name in homes}
    for stem, text in texts.items():
        for name in set(re.findall(r"(?:\{>|=)(\w+)", text)) & homes.keys():
            users[name].add(stem)
    assert {name for name, home in homes.items() if home == "shared"} == {
        name for name, files in users.items() if len(files) > 1
    }
    elsewhere = {
        (homes[name], file) for name, files in users.items() for file in files - {homes[name]}
    }
    assert {(home, file) for home, file in elsewhere if home != "shared"} == {("locks", "claim")}


# The language


def text_of(*sections: str) -> str:
    return parsed(["\n\n".join(sections)])["it"].text


def test_an_argument_is_a_fragment_or_a_text() -> None:
    text = text_of(
        """-- name: it :many\nselect {>list of=names with="a, 'b = c'"} from t""",
        "-- fragment: list\n{>of}, {>with}, {>inner what=of}",
        "-- fragment: inner\n[{>what}]",
        "-- fragment: names\nx",
    )
    assert text == "select x, a, 'b = c', [x] from t"


def test_arguments_may_stand_on_several_lines() -> None:
    text = text_of(
        '-- name: it :many\nselect {>list\n    first="a"\n    second="b"}, c',
        "-- fragment: list\n{>first}, {>second}",
    )
    assert text == "select a, b, c"


def test_an_argument_without_text_leaves_nothing() -> None:
    text = text_of('-- name: it :many\nselect a{>busy how=""} from t', "-- fragment: busy\n{>how}")
    assert text == "select a from t"


def test_what_is_included_is_indented_like_its_line() -> None:
    text = text_of(
        "-- name: it :many\nwith a as (\n    select b, case {>when} end\n    {>from}\n)\n{>from}",
        "-- fragment: when\n    when d then e\n    else f",
        "-- fragment: from\nfrom t\nwhere g in (\n    {>when}\n)",
    )
    from_t = ["from t", "where g in (", "        when d then e", "        else f", ")"]
    assert text.splitlines() == [
        "with a as (",
        "    select b, case     when d then e",
        "        else f end",
        *[f"    {line}" for line in from_t],
        ")",
        *from_t,
    ]


def test_comments_of_fragments_stand_before_their_line_once() -> None:
    sources = [
        "-- name: it :many\n-- Of it.\nwith a as (\n    select {>one}, {>one}\n)\n{>one}",
        "-- fragment: one\n-- Of the fragment.\n1\n-- Inside.\n+ 2",
    ]
    statement = parsed(sources)["it"]
    lines = statement.commented.splitlines()
    assert lines[0] == "-- Of it."
    assert [line.strip() for line in lines].count("-- Of the fragment.") == 1
    assert lines[2:4] == ["    -- Of the fragment.", "    select 1"]
    assert "--" not in statement.text


@pytest.mark.parametrize(
    "sections, message",
    [
        (["-- name: it :many\n{>gone}"], "it includes 'gone', which is no fragment"),
        (["-- name: it :many\n1", "-- fragment: it\n2"], "two statements are called it"),
        (["-- name: it :many\n-- settings: patience, speed\n1"], "it has the setting speed"),
    ],
)
def test_what_makes_no_sense_is_refused(sections: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        text_of(*sections)


def test_a_statement_is_put_together_when_it_is_asked_for_and_once() -> None:
    made = parsed(["-- name: it :many\n1\n-- name: other :many\n{>gone}"])
    assert made["it"] is made["it"]
    assert list(made) == ["it", "other"]
    with pytest.raises(ValueError, match="other includes 'gone'"):
        made["other"]
    with pytest.raises(KeyError):
        made["none"]


# Queries


def test_settings_travel_with_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    made = parsed(["-- name: it :one\n-- settings: asynchronous, array_nulls\nselect 1"])
    everywhere = {key: value for name in EVERYWHERE for key, value in SETTINGS[name].items()}
    of_it = everywhere | SETTINGS["asynchronous"] | SETTINGS["array_nulls"]
    assert of_it.keys() == everywhere.keys() | {"synchronous_commit", "array_nulls"}
    assert made["it"].settings == of_it
    monkeypatch.setattr("procrastinate.storage.statements.load", lambda: made)
    statements = Statements()
    assert statements(Request("it")).settings == of_it
    limited = statements.under(Limit(server=2.0, client=3.0).settings)
    assert limited(Request("it")).settings == of_it | {"statement_timeout": "2000"}
    assert statements(Request("it").under(array_nulls="off")).settings == (
        of_it | {"array_nulls": "off"}
    )
    assert limited(Request("it").under(lock_timeout="9")).settings == (
        of_it | {"statement_timeout": "2000", "lock_timeout": "9"}
    )
    assert statements(Request("it")).settings == of_it


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("only", {}),
        ("only, jit", {"jit": "off"}),
        ("only, jit, array_nulls", {"jit", "array_nulls"}),
    ],
)
def test_a_statement_may_run_with_some_settings_only(line: str, settings: object) -> None:
    made = parsed([f"-- name: it :one\n-- settings: {line}\nselect 1"])
    assert made["it"].settings.keys() == set(settings)  # type: ignore[call-overload]


def test_a_cluster_keeps_plans_of_texts_that_name_the_partition() -> None:
    """It chooses the node by the values, which a kept plan does not know."""
    cluster = Partitions(MANY, on_cluster=True)
    kept = {
        partitions: {
            name for name in load() if Statements(None, partitions)(Request(name)).is_sent_often
        }
        for partitions in [ONE, Partitions(MANY), cluster]
    }
    assert kept[ONE] == kept[Partitions(MANY)] >= {"hand_over", "make_slots_full"}
    for name in kept[ONE]:
        plain = Statements(None, Partitions(MANY)).at(7)(Request(name))
        query = Statements(None, cluster).at(7)(Request(name))
        if name in kept[cluster]:
            assert query.sql == plain.sql.replace("%(partition)s", "7")
            assert "partition" not in query.params
        else:
            assert "%(partition)s" not in plain.sql or "insert into" in plain.sql
            assert "plan_cache_mode" not in query.settings
    without = Statements(None, cluster, chooses_plans=False)
    assert [name for name in load() if without(Request(name)).is_sent_often] == []
    assert "partition" in without(Request("any_ready")).params
    statements = Statements(None, cluster)
    first, again, other = (statements.at(n)(Request("any_ready")).sql for n in (7, 7, 8))
    assert first is again  # it is found by its text, which is hashed once
    assert other != first
    assert statements.at(7)(Request("any_ready", partition=8)).sql == other


@pytest.mark.parametrize("ended", [1, 500])
def test_a_cluster_keeps_the_plan_of_an_ending_for_any_number_of_jobs(ended: int) -> None:
    """What it keeps is which node to ask: that node plans for the number. Elsewhere 20 are few."""
    jobs = [Job(n, Status.DOING, "default", "task", {}, attempts=1, lease=1) for n in range(ended)]
    endings = [Ended(job, SUCCEEDED) for job in jobs]
    request = next(settle(endings, now=0, worker_id=1, dumps=str))
    cluster = Statements(None, Partitions(MANY, on_cluster=True)).at(7)(request)
    assert cluster.is_sent_often
    assert cluster.settings["lock_timeout"] == str(PATIENCE_MS)
    for elsewhere in (Statements(), Statements(None, Partitions(MANY)).at(7)):
        assert elsewhere(request).is_sent_often == (ended == 1)


def test_no_node_gets_an_array_with_nulls() -> None:
    """A role's array_nulls = off goes to the nodes, and what is set against it does not.

    (Ticks are read by the coordinator, which sends a node rows.)
    """
    at_nodes = {
        name: each.text
        for name, each in load_distributed().items()
        if "array_nulls" in each.settings and "%(partition)s" in each.text and name != "defer_ticks"
    }
    lists = {
        name: set(re.findall(r"%\((\w+)\)s::(?:text|integer|bigint)\[\]", text))
        for name, text in at_nodes.items()
    }
    never_null = {"ids", "leases", "began_us", "ended_us", "ages_us", "wanted", "begun", "unknown"}
    assert {name: some for name, some in lists.items() if some - never_null - {"served"}} == {}
    given: dict[str, Any] = {"priorities": [1, None], "queue_names": ['ä"', None], "errors": None}
    query = Statements(None, Partitions(MANY))(
        Request("settle_jobs", **dict.fromkeys(SETTLED), **given)
    )
    assert (query.params["priorities"], query.params["errors"]) == ("[1, null]", None)
    assert json.loads(query.params["queue_names"]) == ['ä"', None]  # type: ignore[arg-type]
    assert Statements()(Request("settle_jobs", **given)).params == {**given, "partition": 0}


def test_what_reads_all_partitions_asks_each_node_over_one_connection() -> None:
    """Of what workers send. Counts for people may have the nodes' processors."""
    name = "citus.max_adaptive_executor_pool_size"
    sparing = {each for each, statement in load().items() if name in statement.settings}
    assert {"sweep", "running_workers", "held_jobs", "get_job"} <= sparing
    assert all("%(partitions)s" in load_distributed()[each].text for each in sparing)
    assert not [each for each in sparing if each.startswith("count_")]
    for partitions in (ONE, Partitions(MANY)):
        assert name not in Statements(None, partitions)(Request("sweep")).settings
    of_cluster = Statements(None, Partitions(MANY, on_cluster=True))(Request("sweep"))
    assert of_cluster.settings[name] == "1"


#: The other lists of what became of jobs, in which some may be null.
SETTLED = ("due_ats", "delays_us", "locks")
#: They change tables of the coordinator, or rows that only workers change, and not for long.
WAITS_FOR_NO_USER = {
    *("report_progress", "forget_progress", "prune_progress", "prune_minutes"),
    *("add_to_hours", "add_to_minute", "take_old_minutes"),
}


def test_a_node_is_told_in_the_statement_how_long_it_may_wait() -> None:
    """What is set in front of a statement stays with the coordinator."""
    limited = {name for name, each in load().items() if "lock_timeout" in each.settings}
    says = {name for name, each in load_distributed().items() if "%(lock_timeout)s" in each.text}
    assert limited - says == WAITS_FOR_NO_USER
    assert [name for name, each in load().items() if "%(lock_timeout)s" in each.text] == []
    made = Statements(partitions=Partitions(MANY))
    of_one = Request("delete_finished", ids=[1], leases=[1], worker_id=1)
    assert made(of_one).params["lock_timeout"] == str(PATIENCE_MS)
    assert made(of_one.under(lock_timeout="7")).params["lock_timeout"] == "7"
    assert "lock_timeout" not in Statements()(of_one).params


def test_a_node_remembers_the_claims_before_it_crashes() -> None:
    """What it forgot ran twice: 50 jobs of a node that was killed while workers went on."""
    undurable = {name for name, each in load().items() if "synchronous_commit" in each.settings}
    assert {name for name in load() if name.startswith("claim_")} < undurable
    texts = [each.text for each in load_distributed().values()]
    assert [text for text in texts if "synchronous_commit" in text] == []


def test_every_statement_runs_without_jit_in_read_committed() -> None:
    statements = Statements()
    sets = {name: statements(Request(name)).settings for name in load()}
    assert len(sets) > 60
    # The ends of savepoints set nothing: after an error the server would refuse it.
    assert {name for name, each in sets.items() if not each} == {
        *("drop_savepoint", "return_to_savepoint"),
    }
    assert {(each["jit"], each["transaction_isolation"]) for each in sets.values() if each} == {
        ("off", "read committed")
    }


def test_a_limit_holds_for_what_can_have_settings() -> None:
    """A savepoint is returned to after an error, when the server takes nothing else."""
    prepare = Statements().under(Limit(server=1.0, client=2.0).settings)
    assert prepare(Request("get_job")).settings["statement_timeout"] == "1000"
    assert prepare(Request("return_to_savepoint")).settings == {}


def test_the_partition_is_filled_in_where_a_statement_is_about_one() -> None:
    zero = Statements("mine")
    seven = zero.at(7)
    for name, statement in load().items():
        request = Request(name, id=1)
        is_about_one = "%(partition)s" in statement.text
        assert zero(request).params == ({"id": 1, "partition": 0} if is_about_one else {"id": 1})
        assert seven(request).params == ({"id": 1, "partition": 7} if is_about_one else {"id": 1})
        assert seven(request).sql is zero(request).sql
        assert request.params == {"id": 1}
    assert (zero.schema, seven.schema) == ("mine", "mine")


def test_a_request_may_name_its_own_partition() -> None:
    statements = Statements().at(3)
    assert statements(Request("get_job", id=1, partition=7)).params["partition"] == 7
    # A statement that is about no partition has no use for it.
    assert statements(Request("ping", partition=7)).params == {}


class Answering:
    """Answers requests with their partition, or with an error if that is asked for."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def execute(self, request: Request) -> list[tuple[object]]:
        self.asked.append(request)
        if request.name == "fails":
            raise ConnectorException("as asked")
        return [(request.params.get("partition"),)]


def test_a_flow_runs_in_the_partition_that_it_is_given() -> None:
    def inner() -> Flow[list[object]]:
        try:
            yield Request("fails")
        except ConnectorException as exc:
            caught = str(exc)
        first = yield Request("a")
        named = yield Request("b", partition=2)
        return [caught, first[0][0], named[0][0]]

    def outer() -> Flow[list[object]]:
        return (yield from at(7, inner())) + (yield from at(8, inner()))

    assert at(7, inner()).__name__ == "inner"
    answering = Answering()
    told = run(outer(), answering, lambda request: request)  # type: ignore[arg-type,return-value]
    assert told == ["as asked", 7, 2, "as asked", 8, 2]
    assert len(answering.asked) == 6


def test_jobs_and_locks_are_named_with_the_partition_and_the_other_tables_with_0() -> None:
    for name, statement in load().items():
        said = set(re.findall(r"(\w+)\.partition = (%\(partition\)s::smallint|0)", statement.text))
        of_jobs = {alias for alias, value in said if value != "0"}
        of_others = {alias for alias, value in said if value == "0"}
        if name == "defer_jobs":  # which inserts into partition 0 so far
            of_others -= {"twin"}
        assert of_jobs <= {"job", "twin", "held", "wait", "progress"}, name
        assert of_others <= {"worker", "other", "periodic", "known", "pause", "minute"}, name


def test_a_script_is_sent_as_it_is_in_the_schema() -> None:
    query = Statements("mine")(Script("migration 9", "create table {schema}.t (); select '%'"))
    assert (query.name, query.params) == ("migration 9", {})
    assert query.sql == "create table \"mine\".t (); select '%'"


def test_a_statement_is_printed_by_its_name() -> None:
    command = [sys.executable, "-W", "error", "-m", "procrastinate.storage.statements"]
    printed = subprocess.run([*command, "get_job"], capture_output=True, text=True, check=True)
    assert printed.stdout == flat(load()["get_job"])
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split(" ")[0] for line in listed.stdout.splitlines()] == list(load())
    unknown = subprocess.run([*command, "nothing"], capture_output=True, text=True, check=False)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("usage: ")
