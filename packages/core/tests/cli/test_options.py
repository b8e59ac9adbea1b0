"""Options that take one value are given once, in every command."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from procrastinate.cli.options import Option, option
from procrastinate.cli.root import root
from procrastinate.cli.shell import shell
from procrastinate.cli.verbs import WithVerbs


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its name, those of installed packages and those below others too."""
    yield "procrastinate", root
    ctx = click.Context(root)
    for name in root.list_commands(ctx):
        command = root.get_command(ctx, name)
        assert command is not None
        yield name, command
        verbs = command.verbs if isinstance(command, WithVerbs) else {}
        for verb, below in {**verbs, **getattr(command, "commands", {})}.items():
            yield f"{name} {verb}", below


def refusal_of_two(given: click.Option) -> str:
    alone = click.Command("alone", params=[given])  # others' values would be asked for first
    try:
        alone.make_context("alone", [given.opts[0], *["1"] * given.nargs] * 2)
    except click.UsageError as exc:
        return exc.message
    return "nothing"


def test_an_option_that_is_given_twice_is_refused_by_name_in_every_command() -> None:
    said = {
        (name, max(each.opts, key=len)): refusal_of_two(each)
        for name, command in commands()
        for each in command.params
        if isinstance(each, click.Option) and not (each.multiple or each.is_flag or each.count)
    }
    assert said == {each: f"{each[1]} is given twice, and takes one value" for each in said}
    looked_at = {name for name, _ in said}
    assert {"jobs", "jobs cancel", "queues pause", "worker", "defer", "shell cancel"} <= looked_at


def test_different_names_of_an_option_are_the_same_option() -> None:
    command = click.Command("c", params=[Option(["-n", "--name"])])
    with pytest.raises(click.UsageError, match="--name is given twice"):
        command.make_context("c", ["-n", "a", "--name=b"])


@pytest.mark.parametrize(("words", "value"), [([], "mail"), (["--queue", "letters"], "letters")])
def test_an_option_wins_over_its_variable(
    monkeypatch: pytest.MonkeyPatch, words: list[str], value: str
) -> None:
    monkeypatch.setenv("SHOP_QUEUE", "mail")

    @click.command
    @option("--queue")
    @option("--many", multiple=True)
    def command(queue: str, many: tuple[str, ...]) -> None: ...

    with command.make_context(
        "c", [*words, "--many", "a", "--many", "b"], auto_envvar_prefix="SHOP"
    ) as ctx:
        assert ctx.params == {"queue": value, "many": ("a", "b")}


def test_the_prompt_of_the_shell_refuses_it_too() -> None:
    ctx = click.Context(shell)
    given = ["cancel", "queue=mail", "--queue", "letters"]
    name, command, words = shell.resolve_command(ctx, given)
    assert command is not None
    with pytest.raises(click.UsageError, match="--queue is given twice"):
        command.make_context(name, words, parent=ctx)
