"""Files: finding them, naming them in job arguments, and reading them.

Rules

1. A path is bytes, as the system has it; names need not be UTF-8. In job arguments and tables it
   is `encoded`: ASCII text, so that it is JSON and fits into a database of any encoding.
2. Only regular files are read. What else there may be (a FIFO, a socket, a device) is neither
   listed nor waited for, also where it took a file's place after the listing.
3. A file that cannot be looked at, such as a dangling symlink, is listed: reading it says why.
4. Folders behind symlinks are not entered, so that loops do no harm.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

CHUNK = 1024 * 1024  # bytes read at once

#: Printable ASCII stays as it is, so that the arguments of most jobs are easy to read.
_SAFE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
#: O_NONBLOCK: opening a FIFO would wait for a writer. Windows has no such thing, but text mode.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Content:
    """What was read from a file: bytes, lines, and a BLAKE2b digest (hexadecimal)."""

    size: int
    lines: int
    digest: str


def find(
    folder: bytes,
    *,
    without: Collection[bytes] = (),
    on_error: Callable[[OSError], None] | None = None,
) -> Iterator[bytes]:
    """Yield the files below a folder, in order of name.

    Folders named in ``without`` are left out; ``on_error`` is told of those that cannot be read.
    """
    for parent, folders, names in os.walk(folder, onerror=on_error):
        folders[:] = sorted(name for name in folders if name not in without)
        for name in sorted(names):
            path = os.path.join(parent, name)
            if _is_to_be_read(path):
                yield path


def _is_to_be_read(path: bytes) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def encoded(path: bytes) -> str:
    """Return a path as ASCII text."""
    return quote_from_bytes(path, safe=_SAFE)


def decoded(text: str) -> bytes:
    """Return the path that `encoded` made this text from."""
    return unquote_to_bytes(text)


def shown(path: bytes) -> str:
    """Return a path for people: on one line, with what cannot be printed as escapes."""
    text = os.fsdecode(path)
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    undecodable = 0xDC80 <= ord(character) <= 0xDCFF  # a byte, as os.fsdecode marks it
    if undecodable:
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def chunks(path: bytes) -> Iterator[bytes]:
    """Yield a file's content in pieces. Raises OSError, also for what is no regular file."""
    name = os.fsdecode(path)
    _check_regular(os.stat(name), name)  # opening a device may set it going
    with open(os.open(name, _FLAGS), "rb", buffering=0) as file:
        _check_regular(os.fstat(file.fileno()), name)
        while chunk := file.read(CHUNK):
            yield chunk


def _check_regular(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", name)


def measure(pieces: Iterable[bytes]) -> Content:
    """Return the size, lines and digest of a content. A last line without its end counts too."""
    size = lines = 0
    digest = hashlib.blake2b(digest_size=32)
    last = b"\n"
    for piece in pieces:
        size += len(piece)
        lines += piece.count(b"\n")
        digest.update(piece)
        last = piece[-1:]
    return Content(size, lines + (last != b"\n"), digest.hexdigest())
