"""The demo on a real database: what it reads, what it says, and what it leaves behind."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import procrastinate
from procrastinate_embedded.demo import crash, files, place, worker
from procrastinate_embedded.demo.summary import lost_files, summary
from procrastinate_embedded.demo.tables import Tables

Rows = list[tuple[Any, ...]]
Query = Callable[..., Rows]
Tell = Callable[..., Any]


def make_files(folder: Path, number: int) -> None:
    for each in range(number):
        (folder / f"file{each:03}").write_text(f"{each}\n" * each)


def schemas(query: Query) -> list[str]:
    rows = query("select nspname from pg_namespace where nspname like 'procrastinate_demo%'")
    return [row[0] for row in rows]


def test_every_file_is_read_and_stored(tell: Tell, folder: Path, query: Query) -> None:
    make_files(folder, 30)
    told = tell(keep=True)
    (schema,) = schemas(query)
    expected = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        digest = hashlib.blake2b(content, digest_size=32).hexdigest()
        expected.append((str(path), len(content), content.count(b"\n"), digest, 1))
    stored = query(
        f"select path, size, lines, digest, times_stored from {schema}.results order by path"
    )
    assert stored == expected
    assert (told.good, "Every file is done: 30 read." in told.text) == (True, True)


def test_nothing_is_left_behind_and_other_tables_are_not_touched(
    tell: Tell, folder: Path, query: Query, sync_app: procrastinate.App
) -> None:
    make_files(folder, 3)
    job_id = sync_app.configure_task("of_another_app").defer()
    assert tell().good
    assert schemas(query) == []
    assert sync_app.job_manager.get_job(job_id).status == "todo"
    assert len(sync_app.job_manager.list_jobs()) == 1


def test_files_with_odd_names_are_read(tell: Tell, folder: Path, query: Query) -> None:
    names = [
        b"\xff\xfe",
        b"new\nline",
        b"'\"\\ quotes",
        b"%25 %s {schema}",
        "grüß 日本".encode(),
        b"[red]",
    ]
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"a\n")
    told = tell(keep=True)
    (schema,) = schemas(query)
    stored = query(f"select path from {schema}.results")
    assert sorted(os.path.basename(files.decoded(row[0])) for row in stored) == sorted(names)
    assert (told.good, "Every file is done: 6 read." in told.text) == (True, True)


def test_an_unreadable_file_is_tried_again_then_failed_and_shown(tell: Tell, folder: Path) -> None:
    make_files(folder, 2)
    (folder / os.fsdecode(b"[b]gone\xff")).symlink_to("nowhere")
    told = tell()
    assert told.good
    (line,) = (each for each in told.text.splitlines() if "[b]gone\\xff" in each)
    assert [each.strip() for each in line.strip("│").split("│")][:2] == ["[b]gone\\xff", "3"]
    assert "FileNotFoundError: [Errno 2] No such file or directory" in line
    assert "Every file is done: 2 read; 1 failed, for the reasons above." in told.text


def test_a_killed_worker_loses_nothing_and_nothing_that_had_ended_runs_again(
    tell: Tell, folder: Path
) -> None:
    make_files(folder, 200)
    told = tell(crash=True)
    assert told.good
    assert "jobs had ended before the kill: none of them ran again" in told.text
    assert " recovered and brought to their end by the other worker." in told.text
    assert "Every file is done: 200 read." in told.text


def test_a_single_job_is_caught_in_the_act(tell: Tell, folder: Path) -> None:
    make_files(folder, 1)
    told = tell(crash=True)
    assert told.good
    assert "the killed worker held 1 job: 1 recovered" in told.text


def test_an_empty_folder_is_said_to_be_empty(tell: Tell, folder: Path, query: Query) -> None:
    told = tell()
    assert (told.good, told.text) == (True, f"There is no file below {folder}: nothing to do.\n")


def test_the_number_of_files_can_be_limited(tell: Tell, folder: Path) -> None:
    make_files(folder, 5)
    assert "Every file is done: 2 read." in tell(limit=2).text


def test_without_a_dsn_a_server_is_started_and_gone_afterwards(folder: Path) -> None:
    with place.place(None, keep=False) as where:
        app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=where.dsn))
        with app.open():
            assert app.check_connection() is False
    with pytest.raises(procrastinate.ConnectorException):
        app.open()


@pytest.fixture
def kept(tell: Tell, folder: Path, query: Query, sync_app: procrastinate.App) -> Tables:
    """The tables of a demo with --crash that went well."""
    make_files(folder, 20)
    assert tell(crash=True, keep=True).good
    connector = sync_app.connector
    assert isinstance(connector, procrastinate.Psycopg2Connector)
    return Tables(connector, schemas(query)[0])


@pytest.mark.slow
def test_a_lost_file_is_found(kept: Tables) -> None:
    assert summary(kept).lost == 0
    kept.query("delete from {schema}.results where path like '%file003'")
    kept.query("delete from {schema}.procrastinate_jobs where args->>'path' like '%file005'")
    assert summary(kept).lost == 2
    lost = [(os.path.basename(path), status) for path, status in lost_files(kept, 10)]
    assert lost == [("file003", "succeeded"), ("file005", "no job")]


RAN_AGAIN = {
    "attempts": "update {schema}.procrastinate_jobs set attempts = 2 where id = %(id)s::bigint",
    "times": "update {schema}.procrastinate_jobs set started_at = now() where id = %(id)s::bigint",
    "gone": "delete from {schema}.procrastinate_jobs where id = %(id)s::bigint",
    "result": "update {schema}.results set times_stored = 2 where path ="
    " (select path from {schema}.files where job_id = %(id)s::bigint)",
}


@pytest.mark.slow
@pytest.mark.parametrize("sign", RAN_AGAIN)
def test_a_finished_job_that_ran_again_is_found(kept: Tables, sign: str) -> None:
    assert crash.proof(kept).holds
    (ended,) = kept.one("select min(id) from {schema}.before_kill where status = 'succeeded'")
    kept.query(RAN_AGAIN[sign], id=ended)
    proof = crash.proof(kept)
    assert (proof.ran_again, proof.holds) == (1, False)


@pytest.mark.slow
def test_a_held_job_that_was_not_recovered_is_found(kept: Tables) -> None:
    """Whatever the killed worker held: it may have been nothing at that moment."""
    (held,) = kept.one("select max(id) from {schema}.before_kill")
    for table in ("before_kill", "procrastinate_jobs"):
        kept.query(f"update {{schema}}.{table} set status = 'doing' where id = {held}")
    proof = crash.proof(kept)
    assert (proof.held - proof.recovered, proof.holds) == (1, False)


def test_a_worker_that_ends_by_itself_is_reported_with_its_last_words() -> None:
    started = worker.WorkerProcess(dsn="host=127.0.0.1 port=1", schema="x", number=1, concurrency=1)
    with worker.running(started):
        started._process.wait(20)
        with pytest.raises(worker.WorkerEnded, match=r"with code 1: .*ConnectionFailed"):
            started.check()
