"""Commands of installed packages: found, imported late, and never in the way of other commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from procrastinate.cli.packages import PUBLISHED
from procrastinate.cli.root import root

GREETS = """
import click

@click.command("theirs")
@click.option("--name", default="you")
def command(name):
    '''Greet somebody. And much more.'''
    click.echo(f"hello {name}")
"""

Install = Callable[..., None]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a package with a command on the path, as pip would."""

    def make(command: str, code: str, package: str = "their-package") -> None:
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(
            f"[procrastinate.commands]\n{command} = {module}:command\n"
        )

    monkeypatch.syspath_prepend(str(tmp_path))
    known = dict(root.commands)
    yield make
    root.commands.clear()
    root.commands.update(known)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process; return exit code, stdout and stderr."""

    def call(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit:
            root.main([*args], prog_name="procrastinate")
        said = capsys.readouterr()
        return int(exit.value.code or 0), said.out, said.err

    return call


def test_a_package_adds_a_command_with_its_options_and_the_programs(
    install: Install, run: Run
) -> None:
    install("greet", GREETS)
    assert run("greet", "--name", "Ada", "--log-level", "error") == (0, "hello Ada\n", "")


def test_its_options_can_be_set_by_the_environment(
    install: Install, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("greet", GREETS)
    monkeypatch.setenv("PROCRASTINATE_GREET_NAME", "Bob")
    assert run("greet") == (0, "hello Bob\n", "")


def test_the_list_of_commands_has_its_first_sentence(install: Install, run: Run) -> None:
    install("greet", GREETS)
    _, shown, _ = run("--help")
    assert "greet" in shown
    assert "Greet somebody." in shown
    assert "much more" not in shown


def test_it_is_imported_for_itself_alone(install: Install, run: Run) -> None:
    install("greet", "raise AssertionError('imported')")
    assert run("completion", "bash")[0] == 0
    assert "their_package" not in sys.modules


def test_its_name_is_completed_without_an_import(install: Install) -> None:
    install("greet", "raise AssertionError('imported')")
    found = root.shell_complete(click.Context(root), "gre")
    assert [each.value for each in found] == ["greet"]


@pytest.mark.parametrize(
    "code, problem",
    [
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit('no licence')", "cannot be imported: SystemExit: no licence"),
        ("", "cannot be imported: AttributeError"),
        ("command = 7", "is no click command, but 7"),
    ],
)
def test_a_broken_one_gives_one_line_and_the_list_of_commands_is_shown_with_it(
    install: Install, run: Run, code: str, problem: str
) -> None:
    install("greet", code)
    exit_code, _, error = run("greet")
    assert exit_code == 1
    assert error.startswith("error: command 'greet'")
    assert problem in error
    assert error.count("\n") == 1
    exit_code, shown, _ = run("--help")
    assert (exit_code, "(broken)" in shown, "defer" in shown) == (0, True, True)


def test_two_packages_that_claim_one_name_are_both_named(install: Install, run: Run) -> None:
    install("greet", GREETS)
    install("greet", GREETS, package="other-package")
    exit_code, _, error = run("greet")
    assert exit_code == 1
    assert "two packages claim the command name 'greet'" in error
    assert "other-package 1.2" in error
    assert "their-package 1.2" in error


def test_a_package_cannot_take_the_name_of_one_of_procrastinates_own(
    install: Install, run: Run
) -> None:
    install("connectors", GREETS)
    exit_code, shown, _ = run("connectors", "--json")
    assert exit_code == 0
    assert "capabilities" in shown
    assert "Greet somebody" not in run("--help")[1]


@pytest.mark.parametrize("name, package", PUBLISHED.items())
def test_a_published_one_that_is_missing_is_named_with_its_package(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setattr("procrastinate.connectors.entry_points", lambda group: {})
    monkeypatch.delitem(root.commands, name, raising=False)
    exit_code, _, error = run(name)
    assert exit_code == 2
    assert f"pip install '{package}'" in error


def test_an_unknown_command_is_a_wrong_command_line(run: Run) -> None:
    exit_code, _, error = run("nonsense")
    assert exit_code == 2
    assert "No such command 'nonsense'" in error
