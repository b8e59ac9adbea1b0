"""The licences of what packages bring along.

A distribution says its licence as an expression (PEP 639), in classifiers, or in a text. The first
that says something counts. What cannot be understood is a complaint: somebody has to read it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution

from packaging.utils import canonicalize_name

#: Licences that ask for nothing but their text, by their SPDX names.
PERMISSIVE = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "HPND", "ISC", "MIT"),
        *("PSF-2.0", "PostgreSQL", "Python-2.0", "Unlicense", "Zlib"),
        "BSD",  # by a classifier that does not say which
    }
)


@dataclass(frozen=True)
class LetIn:
    """A licence that is let in for one distribution, in some of our packages."""

    licence: str
    packages: frozenset[str]
    reason: str


_ON_PSYCOPG2 = frozenset(
    {
        *("procrastinate-psycopg2", "procrastinate-aiopg", "procrastinate-sqlalchemy"),
        "procrastinate-django",
    }
)
_ON_PSYCOPG = frozenset(
    {
        *("procrastinate-psycopg", "procrastinate-sqlalchemy", "procrastinate-sqlalchemy-async"),
        "procrastinate-django",
    }
)
_DRIVER = "a driver that its package is for: imported, unchanged, and replaceable by its user"
EXCEPTIONS = {
    "psycopg2-binary": LetIn("LGPL", _ON_PSYCOPG2, _DRIVER),
    "psycopg": LetIn("LGPL-3.0-only", _ON_PSYCOPG, _DRIVER),
    "psycopg-binary": LetIn("LGPL-3.0-only", _ON_PSYCOPG, _DRIVER),
    "psycopg-pool": LetIn("LGPL-3.0-only", _ON_PSYCOPG, _DRIVER),
    "hypothesis": LetIn(
        "MPL-2.0",
        frozenset({"procrastinate-connector-testkit"}),
        "a tool of tests: the licence concerns changes to its own files",
    ),
}

#: The ends of classifiers ``License :: OSI Approved :: ...``.
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "PostgreSQL License": "PostgreSQL",
    "Python Software Foundation License": "PSF-2.0",
}
#: What stands in the field License of older metadata, in lower case.
_TEXTS = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "bsd": "BSD",
    "lgpl with exceptions": "LGPL",
    "mit license": "MIT",
    "mpl 2.0": "MPL-2.0",
    "psf": "PSF-2.0",
}
_KNOWN = PERMISSIVE | {each.licence for each in EXCEPTIONS.values()}


@dataclass(frozen=True)
class Licensed:
    """A distribution that is installed, and its licence; None if it cannot be understood."""

    name: str
    version: str
    licence: str | None


def licensed(distribution: Distribution) -> Licensed:
    """Return what a distribution says of its licence."""
    said = distribution.metadata
    licence = understood(
        said["License-Expression"],
        [each for each in said.get_all("Classifier", []) if each.startswith("License ::")],
        said["License"],
    )
    return Licensed(canonicalize_name(said["Name"]), said["Version"], licence)


def understood(
    expression: str | None, classifiers: Collection[str], text: str | None
) -> str | None:
    """Return a licence from the three places that may say it; None if none can be understood."""
    if expression:
        return expression
    ends = [each.rpartition(" :: ")[2] for each in classifiers]
    if len(ends) == 1 and ends[0] in _CLASSIFIERS:
        return _CLASSIFIERS[ends[0]]
    words = " ".join((text or "").split())
    return _TEXTS.get(words.lower()) or (words if words in _KNOWN else None)


def complaints(package: str, found: Iterable[Licensed]) -> list[str]:
    """Return the licences of distributions that a package may not bring along."""
    return [
        f"{package} brings {each.name} {each.version}, whose licence"
        f" {f'is {each.licence}' if each.licence else 'is not known'}: see"
        " publishing/checks/licences.py"
        for each in found
        if not _is_let_in(package, each)
    ]


def _is_let_in(package: str, one: Licensed) -> bool:
    exception = EXCEPTIONS.get(one.name)
    if exception and exception.licence == one.licence and package in exception.packages:
        return True
    return one.licence is not None and is_permissive(one.licence)


_TOKEN = re.compile(r"\(|\)|[^\s()]+")


def is_permissive(expression: str) -> bool:
    """Whether an SPDX expression can be met by permissive licences alone.

    An unknown name, an exception (``WITH``) and an expression that does not parse are not.
    """
    try:
        value, rest = _any_of(_TOKEN.findall(expression))
    except IndexError:  # ended too early
        return False
    return value and not rest


def _any_of(tokens: list[str]) -> tuple[bool, list[str]]:
    value, rest = _all_of(tokens)
    while rest and rest[0].upper() == "OR":
        other, rest = _all_of(rest[1:])
        value = value or other
    return value, rest


def _all_of(tokens: list[str]) -> tuple[bool, list[str]]:
    value, rest = _one(tokens)
    while rest and rest[0].upper() == "AND":
        other, rest = _one(rest[1:])
        value = value and other
    return value, rest


def _one(tokens: list[str]) -> tuple[bool, list[str]]:
    if tokens[0] == "(":
        value, rest = _any_of(tokens[1:])
        return value and rest[0] == ")", rest[1:]
    return tokens[0] in PERMISSIVE, tokens[1:]
