"""The reference of the command line, from its click commands: ``.. commands::``."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from procrastinate.cli import PROGRAM
from procrastinate.cli.root import root

#: Where the default of an option is a folder of the machine that builds the pages.
STANDARD_LIBRARY = re.compile(rf",?\s*{re.escape(sysconfig.get_paths()['stdlib'])}")

#: What click adds to the help of some options, and is said of all of them here.
ENVIRONMENT = re.compile(r"\s*\[env var: .*?\]")


class Commands(SphinxDirective):
    """Inserts one section for each command, with everything that its ``--help`` says."""

    def run(self) -> list[nodes.Node]:
        top = click.Context(root, info_name=PROGRAM, **root.context_settings)
        found = self.sections(root, top, "")
        for name in root.list_commands(top):
            command = root.get_command(top, name)
            if command is not None and not command.hidden:
                found += self.with_its_commands(command, top, name)
        return found

    def with_its_commands(
        self, command: click.Command, parent: click.Context, name: str
    ) -> list[nodes.Node]:
        context = click.Context(command, info_name=name.split()[-1], parent=parent)
        found = self.sections(command, context, name)
        if type(command) is click.Group:  # the shell's has a page of its own
            for each in command.list_commands(context):
                found += self.with_its_commands(command.commands[each], context, f"{name} {each}")
        return found

    def sections(
        self, command: click.Command, context: click.Context, name: str
    ) -> list[nodes.Node]:
        title = f"{PROGRAM} {name}".strip()
        text = "\n".join([title, "-" * len(title), "", *described(command, context)])
        return [*self.parse_text_to_nodes(text, allow_section_headings=True)]


def described(command: click.Command, context: click.Context) -> Iterator[str]:
    """The lines of reStructuredText that describe one command."""
    yield from literal(command.get_usage(context).removeprefix("Usage: "))
    yield from paragraphs(command.help or "")
    yield from ("", f".. program:: {context.command_path}", "")
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option):
            yield from option(parameter, context)
    yield from paragraphs(command.epilog or "")


def option(option: click.Option, context: click.Context) -> Iterator[str]:
    record = option.get_help_record(context)
    if option.hidden or record is None:
        return
    names, text = record
    text = STANDARD_LIBRARY.sub("", ENVIRONMENT.sub("", text))
    yield f".. option:: {names.replace(' / ', ', ')}"
    yield ""
    yield f"   {escaped(text)}"
    variable = environment_variable(option, context)
    if variable:
        yield f"   (``{variable}``)"
    yield ""


def environment_variable(option: click.Option, context: click.Context) -> str | None:
    if isinstance(option.envvar, str):
        return option.envvar
    if not option.allow_from_autoenv or option.is_eager or option.name is None:
        return None
    return f"{context.auto_envvar_prefix}_{option.name}".upper()


def paragraphs(text: str) -> Iterator[str]:
    r"""click's help: paragraphs, of which those that begin with ``\b`` keep their lines."""
    for paragraph in re.split(r"\n\s*\n", click.unstyle(text).strip()):
        if paragraph.startswith("\b"):
            yield from literal(paragraph.lstrip("\b").strip("\n"))
        else:
            yield from ("", escaped(" ".join(paragraph.split())), "")


def literal(text: str) -> Iterator[str]:
    yield from ("", ".. code-block:: text", "")
    yield from (f"   {line}" for line in text.splitlines())
    yield ""


def escaped(text: str) -> str:
    return re.sub(r"([*`|_\\])", r"\\\1", text)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
