"""The names of our constraints, as a cluster's nodes and its coordinator report them."""

from __future__ import annotations

import re

_VIOLATION = "23"  # the class of integrity_constraint_violation

#: The name of a constraint of ours, in a message or alone. That of an index of a shard ends in the
#: shard's number besides, of six digits or more.
_OURS = re.compile(r"\b(procrastinate_[a-z_]+_(pkey|key|check))(?:_\d{6,})?\b")
_BY_ENDING = {"pkey": "23505", "key": "23505", "check": "23514"}

#: A coordinator copies the rows of an INSERT ... SELECT to the nodes. It repeats the message of a
#: node that refused them, but not the SQLSTATE: it reports these instead.
_OWN_OF_COORDINATOR = ("XX", "08")


def as_in_the_schema(
    message: str, sqlstate: str | None, constraint: str | None
) -> tuple[str | None, str | None]:
    """Return the SQLSTATE and the constraint's name that one server alone would have reported."""
    if sqlstate is None or not sqlstate.startswith((_VIOLATION, *_OWN_OF_COORDINATOR)):
        return sqlstate, constraint
    ours = _OURS.search(message) if constraint is None else _OURS.fullmatch(constraint)
    if ours is None:
        return sqlstate, constraint
    return sqlstate if sqlstate.startswith(_VIOLATION) else _BY_ENDING[ours[2]], ours[1]
