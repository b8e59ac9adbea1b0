"""The language of the ``.sql`` files: statements, and fragments that they share.

Rules

1. ``-- name: NAME :KIND`` heads a statement: ``:one`` row, ``:many`` rows, ``:exec`` none of
   interest. ``-- settings: NAME, NAME`` in it says which settings it runs with, besides those that
   all have; with ``only`` as the first name it runs with these alone.
2. ``-- fragment: NAME`` heads a text that others include with ``{>NAME}``, from any file.
3. ``{>NAME key=OTHER text="job.id"}`` gives it arguments: its ``{>key}`` then includes the fragment
   OTHER, and its ``{>text}`` stands for the text in quotes. It hands an argument on by its name.
4. ``-- distributed fragment: NAME`` is what the fragment NAME is on a distributed database, if that
   cannot run the usual text on one node. (Only if a plain server would pay for a common text.)
5. What is included is indented like the line that includes it. The comments at the head of a
   fragment go before that line, once in a statement. Comments and blank lines are not sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_HEADER = re.compile(
    r"^-- (name|fragment|distributed fragment): (\w+)(?: :(one|many|exec))?$", re.MULTILINE
)
_SETTINGS = re.compile(r"^-- settings: (.+)$", re.MULTILINE)
_ARGUMENTS = r'(?:\s+\w+=(?:\w+|"[^"]*"))*'
_INCLUDE = re.compile(rf"\{{>(\w+)({_ARGUMENTS})\s*\}}")
_ARGUMENT = re.compile(r'(\w+)=(\w+|"[^"]*")')


@dataclass(frozen=True, slots=True)
class Section:
    """A statement or a fragment as it stands in a file, with its comments."""

    name: str
    kind: str  # of a statement; empty for a fragment
    text: str
    is_distributed: bool = False

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of the settings that a statement runs with."""
        lines = _SETTINGS.findall(self.text)
        return tuple(name.strip() for line in lines for name in line.split(","))


def sections(file_text: str) -> Iterator[Section]:
    """Yield the statements and fragments of a file."""
    heads = list(_HEADER.finditer(file_text))
    ends = [head.start() for head in heads[1:]] + [len(file_text)]
    for head, end in zip(heads, ends, strict=True):
        text = _tidy(file_text[head.end() : end])
        yield Section(head[2], head[3] or "", text, head[1].startswith("distributed"))


def _tidy(text: str) -> str:
    lines = (line.rstrip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def without_comments(text: str) -> str:
    """Return what is sent of a text."""
    return "\n".join(line for line in text.splitlines() if not _is_comment(line))


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("--")


def expanded(section: Section, fragments: Mapping[str, Section]) -> str:
    """Return a statement's text with all that it includes. Raises ValueError for a bad include."""
    try:
        return "\n".join(_Expansion(fragments).lines(section.text, {}))
    except KeyError as exc:
        raise ValueError(f"{section.name} includes {exc}, which is no fragment") from exc


class _Expansion:
    """One statement's. An argument is the name of a fragment, or a text with its quotes."""

    def __init__(self, fragments: Mapping[str, Section]) -> None:
        self._fragments = fragments
        self._explained: set[str] = set()

    def lines(self, text: str, given: Mapping[str, str]) -> list[str]:
        written = _Lines()
        end = 0
        for match in _INCLUDE.finditer(text):
            written.write(text[end : match.start()])
            written.include(*self._included(match, given))
            end = match.end()
        written.write(text[end:])
        return written.finished()

    def _included(
        self, include: re.Match[str], given: Mapping[str, str]
    ) -> tuple[list[str], list[str]]:
        """Return the comments of what is included, and its lines."""
        name = given.get(include[1], include[1])
        if name.startswith('"'):
            return [], name[1:-1].splitlines()
        handed = {key: given.get(value, value) for key, value in _ARGUMENT.findall(include[2])}
        lines = self.lines(self._fragments[name].text, handed)
        first = next(place for place, line in enumerate(lines) if not _is_comment(line))
        comments = [] if name in self._explained else lines[:first]
        self._explained.add(name)
        return comments, lines[first:]


class _Lines:
    """Lines that are written bit by bit. What is included may begin in the middle of one."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._comments: list[str] = []  # for the line that is being written
        self._line = ""

    def write(self, text: str) -> None:
        first, *others = text.split("\n")
        self._line += first
        for line in others:
            self._end_line()
            self._line = line

    def include(self, comments: list[str], lines: list[str]) -> None:
        indent = self._line[: len(self._line) - len(self._line.lstrip())]
        if comments and (self._comments or (self._lines and _is_comment(self._lines[-1]))):
            comments = ["--", *comments]  # what was said before is about something else
        self._comments += [indent + comment for comment in comments]
        self.write(f"\n{indent}".join(lines))

    def finished(self) -> list[str]:
        self._end_line()
        return self._lines

    def _end_line(self) -> None:
        self._lines += [*self._comments, self._line]
        self._comments = []
