"""The names of channels, for LISTEN."""

from __future__ import annotations

from collections.abc import Sequence

from procrastinate.errors import InvalidOption

_MAX_BYTES = 63


def listen_sql(channels: Sequence[str]) -> str:
    """Return the statements that LISTEN on channels of any name, to be sent in one message.

    Raises `InvalidOption` for a name that no channel can have.
    """
    return ";".join(f"LISTEN {quoted(channel)}" for channel in channels)


def quoted(channel: str) -> str:
    """Return a channel's name as an SQL identifier.

    Raises `InvalidOption` for one that no channel can have. The server would cut a longer name
    short, and so hear another channel.
    """
    if not channel or "\0" in channel or len(channel.encode()) > _MAX_BYTES:
        raise InvalidOption(
            f"a channel's name has 1 to {_MAX_BYTES} bytes and no NUL, not {channel!r}"
        )
    return '"' + channel.replace('"', '""') + '"'
