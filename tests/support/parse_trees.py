"""PostgreSQL's parse tree of a statement, as the server prints it with ``debug_print_parse``.

A tree is made of nodes (`Node`), lists and words. The server's format is not documented, but its
grammar is simple: ``{NAME :field value ...}``, ``(value ...)``, words, and ``<>`` for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg2

Tree: TypeAlias = "Node | list[Any] | str | None"

_TOKEN = re.compile(r'[{}()\[\]]|:\w+(?= )|<>|"(?:[^"\\]|\\.)*"|(?:\\.|[^\s{}()\[\]\\])+')


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a parse tree: its kind, and its fields by name."""

    kind: str
    fields: dict[str, Tree]

    def __getitem__(self, name: str) -> Tree:
        return self.fields.get(name)

    def nodes(self, name: str) -> list[Node]:
        """Return the nodes in a field that holds a list, or one node."""
        value = self.fields.get(name)
        values = value if isinstance(value, list) else [value]
        return [each for each in values if isinstance(each, Node)]

    def oid(self, name: str) -> int:
        return int(str(self.fields[name]))


def walk(tree: Tree, *, below: frozenset[str] = frozenset()) -> Iterator[Node]:
    """Yield all nodes of a tree, from the top, but nothing below nodes of some kinds."""
    if isinstance(tree, Node):
        yield tree
        if tree.kind not in below:
            for value in tree.fields.values():
                yield from walk(value, below=below)
    elif isinstance(tree, list):
        for value in tree:
            yield from walk(value, below=below)


def parsed(text: str) -> Tree:
    """Return a tree from its text."""
    tokens = _TOKEN.findall(text)
    value, end = _value(tokens, 0)
    assert end == len(tokens), tokens[end : end + 20]
    return value


def _value(tokens: list[str], at: int) -> tuple[Tree, int]:
    token = tokens[at]
    if token == "{":
        return _node(tokens, at)
    if token in ("(", "["):
        return _list(tokens, at)
    return (None if token == "<>" else token), at + 1


def _node(tokens: list[str], at: int) -> tuple[Node, int]:
    kind, fields = tokens[at + 1], {}
    at += 2
    while tokens[at] != "}":
        name = tokens[at]
        assert name.startswith(":"), tokens[at - 5 : at + 5]
        values: list[Tree] = []
        at += 1
        # The bytes of a constant are several words: its length and a list.
        while tokens[at] != "}" and not tokens[at].startswith(":"):
            value, at = _value(tokens, at)
            values.append(value)
        fields[name[1:]] = values[0] if len(values) == 1 else values
    return Node(kind, fields), at + 1


def _list(tokens: list[str], at: int) -> tuple[list[Tree], int]:
    values: list[Tree] = []
    at += 1
    while tokens[at] not in (")", "]"):
        value, at = _value(tokens, at)
        values.append(value)
    return values, at + 1


def tree_of(connection: Any, sql: str, params: Any) -> Node:
    """Run a statement, undo what it did, and return the tree that the server made of it.

    That it cannot be run with these values does not matter. Raises `psycopg2.Error` if the server
    made no tree of it.
    """
    return trees_of(connection, sql, params)[0]


def trees_of(connection: Any, sql: str, params: Any) -> list[Node]:
    """Return the trees of a statement and of those that it runs, such as a block's."""
    connection.rollback()
    error: psycopg2.Error | None = None
    connection.notices = []  # psycopg2's own list keeps the last 50
    with connection.cursor() as cursor:
        cursor.execute("set local client_min_messages = log")
        cursor.execute("set local debug_pretty_print = off")
        cursor.execute("set local debug_print_parse = on")
        connection.notices.clear()
        try:
            cursor.execute(sql, params)
        except psycopg2.Error as exc:
            error = exc
    notices = [each for each in connection.notices if "parse tree:" in each]
    connection.rollback()
    if not notices:
        assert error is not None
        raise error
    # (Commands such as CREATE FUNCTION hold what the server's parser made of their text.)
    return [_tree(each) for each in notices if not re.search(r":utilityStmt\s+\{", each)]


def _tree(notice: str) -> Node:
    detail = notice.split("DETAIL:", 1)[1]
    tree = parsed(re.split(r"\n(?:CONTEXT|HINT|LOCATION): ", detail)[0].strip())
    if isinstance(tree, list):  # one query for each statement of a message
        (tree,) = tree
    assert isinstance(tree, Node), notice
    return tree
