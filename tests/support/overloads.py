"""Functions and operators that somebody may put in our way, in a schema on the search path.

PostgreSQL prefers a function whose parameters have just the types of a call's arguments, in
whatever schema it stands, to one of its own for which it has to convert them. `Calls` are what the
parse trees of our statements call, and with which types of arguments; `traps` are functions and
operators of the same names for these types, and others like them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from parse_trees import Node, Tree, walk

_IMPLICIT = "2"  # of a conversion's format: not written down
_VALUE, _ARRAY = "4", "6"  # of a query in an expression: what it stands for
_BOOLEAN = 16
_OPERATORS = ("OPEXPR", "DISTINCTEXPR", "NULLIFEXPR", "SCALARARRAYOPEXPR")
#: What a word in quotes, whose type the parser chooses, might be taken for.
_LIKE_WORDS = ("text", "character varying", "bpchar", "name", "jsonb", "json")
_MOST = 60  # overloads for one call


@dataclass(frozen=True)
class Call:
    """A function or an operator, by its name, with the types that it is called for."""

    name: str
    is_operator: bool
    is_aggregate: bool
    arguments: tuple[str, ...]
    #: Which of these are constants.
    constant: tuple[bool, ...]
    result: str
    is_set: bool


class Catalog:
    """The names of the types, functions and operators that a server's trees give by number."""

    def __init__(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("select oid, format_type(oid, null), typelem, typarray from pg_type")
            rows = cursor.fetchall()
            self.types = {oid: name for oid, name, _, _ in rows}
            self.elements = {oid: element for oid, _, element, _ in rows if element}
            self.arrays = {oid: array for oid, _, _, array in rows if array}
            cursor.execute("select oid, proname, proowner::regrole::text from pg_proc")
            self.functions = {oid: (name, owner) for oid, name, owner in cursor.fetchall()}
            cursor.execute("select oid, oprname, oprowner::regrole::text from pg_operator")
            self.operators = {oid: (name, owner) for oid, name, owner in cursor.fetchall()}
        connection.rollback()

    def called_of(self, tree: Tree, owner: str) -> set[str]:
        """Return the names of what a tree calls that belongs to a role, whatever it is for."""
        found = set()
        for node in walk(tree):
            found |= {self.functions[number] for number in _functions(node)}
            found |= {self.operators[number] for number in _operators(node)}
        return {name for name, whose in found if whose == owner}

    def calls(self, tree: Tree) -> Iterator[Call]:
        """Yield the calls of a tree that are written by name."""
        for node in walk(tree):
            if node.kind == "FUNCEXPR" and node["funcformat"] == "0":
                yield self._call(node, self.functions[node.oid("funcid")][0])
            elif node.kind == "AGGREF":
                yield self._call(node, self.functions[node.oid("aggfnoid")][0], aggregate=True)
            elif node.kind == "ROWCOMPAREEXPR":
                yield from self._comparisons(node)
            elif node.kind in _OPERATORS:
                yield self._call(node, self.operators[node.oid("opno")][0], operator=True)

    def _call(
        self, node: Node, name: str, *, operator: bool = False, aggregate: bool = False
    ) -> Call:
        arguments = [_expression(each) for each in node.nodes("args")]
        types = [self._type_of(_unconverted(each)) for each in arguments]
        if node.kind == "SCALARARRAYOPEXPR":
            types[1] = self.elements[types[1]]
        result = self._type_of(node) if node.kind != "SCALARARRAYOPEXPR" else 0
        return Call(
            name,
            operator,
            aggregate,
            tuple(self.types[each] for each in types),
            tuple(_unconverted(each).kind == "CONST" for each in arguments),
            self.types.get(result, "boolean"),
            node["funcretset"] == "true",
        )

    def _comparisons(self, node: Node) -> Iterator[Call]:
        numbers = node["opnos"]
        assert isinstance(numbers, list)
        for number, *sides in zip(
            (each for each in numbers if str(each).isdigit()),
            node.nodes("largs"),
            node.nodes("rargs"),
            strict=True,
        ):
            types = tuple(self.types[self._type_of(_unconverted(each))] for each in sides)
            name = self.operators[int(str(number))][0]
            yield Call(name, True, False, types, (False, False), "boolean", False)

    def _type_of(self, node: Node) -> int:
        for field in _TYPES:
            if node[field] is not None:
                return node.oid(field)
        if node.kind == "SUBLINK" and node["subLinkType"] in (_VALUE, _ARRAY):
            (query,) = node.nodes("subselect")
            of_column = self._type_of(_expression(query.nodes("targetList")[0]))
            return of_column if node["subLinkType"] == _VALUE else self.arrays[of_column]
        return _BOOLEAN  # a condition


def _functions(node: Node) -> Iterator[int]:
    for field in ("funcid", "aggfnoid", "winfnoid"):
        if node[field] is not None:
            yield node.oid(field)


def _operators(node: Node) -> Iterator[int]:
    if node["opno"] is not None:
        yield node.oid("opno")
    if isinstance(node["opnos"], list):
        yield from (int(str(each)) for each in node["opnos"] if str(each).isdigit())


def _expression(node: Node) -> Node:
    return node.nodes("expr")[0] if node.kind == "TARGETENTRY" else node


_FORMATS = ("funcformat", "relabelformat", "coerceformat", "convertformat")


def _unconverted(node: Node) -> Node:
    """Return an argument as it is written, without the conversions that the parser added."""
    while any(node[field] == _IMPLICIT for field in _FORMATS):
        (node, *_) = node.nodes("args" if node.kind == "FUNCEXPR" else "arg")
    return node


_TYPES = (
    *("vartype", "consttype", "funcresulttype", "opresulttype", "resulttype", "casetype"),
    *("coalescetype", "array_typeid", "aggtype", "wintype", "paramtype", "minmaxtype", "typeId"),
    "refrestype",
)


def variants(call: Call) -> Iterator[tuple[str, ...]]:
    """Yield the types of the parameters of functions that the call might be taken for."""
    choices = [
        _like_a_word(each) if constant else _like(each)
        for each, constant in zip(call.arguments, call.constant, strict=True)
    ]
    yield from itertools.islice(itertools.product(*choices), _MOST)


def _like_a_word(name: str) -> list[str]:
    own = [] if name == "unknown" else [name]
    return list(dict.fromkeys([*own, *_LIKE_WORDS]))


def _like(name: str) -> list[str]:
    if name == "character varying":
        return [name, "text"]
    if name == "text":
        return [name, "character varying"]
    return [name]


def traps(calls: set[Call]) -> Iterator[str]:
    """Yield the statements that make the traps. Each that is sprung draws from ``trap_sprung``."""
    made = set()
    for call in sorted(calls, key=repr):
        for types in variants(call):
            key = (call.name, call.is_operator, types)
            if key in made or (call.is_operator and len(types) != 2):
                continue
            made.add(key)
            yield _trap(call, types, f"trap_{len(made)}")


_BODY = (
    "language plpgsql as"
    " 'begin perform pg_catalog.nextval(''public.trap_sprung''); return{value}; end'"
)


def _trap(call: Call, types: tuple[str, ...], name: str) -> str:
    returns = f"setof {call.result}" if call.is_set else call.result
    body = _BODY.format(value="" if call.is_set or call.result == "void" else " null")
    if call.is_operator:
        left, right = types
        return (
            f"create function public.{name}({left}, {right}) returns {returns} {body};"
            f"create operator public.{call.name}"
            f" (leftarg = {left}, rightarg = {right}, function = public.{name})"
        )
    if call.is_aggregate:
        state = ", ".join([call.result, *types])
        return (
            f"create function public.{name}({state}) returns {call.result} {body};"
            f'create aggregate public."{call.name}"({", ".join(types) or "*"})'
            f" (sfunc = public.{name}, stype = {call.result})"
        )
    return f'create function public."{call.name}"({", ".join(types)}) returns {returns} {body}'
