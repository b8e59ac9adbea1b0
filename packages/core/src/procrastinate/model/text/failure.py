"""An exception as data: what is stored in a job's ``errors``, and what the log says.

Rules

1. Nothing here raises, whatever an exception, its class or its texts do. An exception's attributes
   are read by the descriptors of `BaseException`, so that a property of the same name is not asked.
   The exception's own code runs only in ``str(exception)``, which may raise even `SystemExit`.
2. A text is cut before it is joined with others: an exception of 50 MB is never copied whole.
3. Frames, chains and groups are bounded, because each of them can be made arbitrarily long.
4. The text of a frame depends on its code and its place there alone. Jobs fail at the same places
   again and again, and to find the line and to mark the expression in it takes 20 microseconds. So
   the texts of the last `REMEMBERED` places are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import CodeType, TracebackType
from typing import Any

from procrastinate.model.text import printable

MESSAGE_CHARACTERS = 2_000
TRACEBACK_CHARACTERS = 8_000
NAME_CHARACTERS = 200
LINE_CHARACTERS = 1_000  # of one frame, source line included
FIRST_FRAMES, LAST_FRAMES = 15, 35  # of one exception; those between are left out
REMEMBERED = 500  # places in code whose text is kept
REPEATED = 3  # equal frames in a row; of more, Python says how many there are
MAX_LINKS = 10  # exceptions in a chain of causes and contexts
MAX_MEMBERS = 15  # exceptions of one group
MAX_EXCEPTIONS = 30  # in one text, those in groups included

# Read by these, an attribute is what Python itself sees, whatever the class of an exception says.
_FRAMES, _CAUSE, _CONTEXT, _SUPPRESSED = (
    BaseException.__dict__[name].__get__
    for name in ("__traceback__", "__cause__", "__context__", "__suppress_context__")
)
_MEMBERS = BaseExceptionGroup.__dict__["exceptions"].__get__
_MODULE, _NAME = (type.__dict__[name].__get__ for name in ("__module__", "__qualname__"))

_CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
_DURING = "\nDuring handling of the above exception, another exception occurred:\n\n"


def describe(exception: BaseException, *, attempt: int, now: datetime) -> dict[str, Any]:
    """Return a failed attempt's exception as JSON data, its texts capped (in characters)."""
    return {
        "attempt": attempt,
        "at": now.astimezone(UTC).isoformat(),
        "type": type_name(exception),
        "message": message_of(exception),
        "traceback": traceback_of(exception),
    }


def undescribed(attempt: int) -> dict[str, Any]:
    """Return the entry of an attempt that failed in a way that could not be described."""
    message = "the attempt failed, and its exception could not be described"
    return {"attempt": attempt, "at": None, "type": "", "message": message, "traceback": ""}


def type_name(exception: BaseException) -> str:
    """Return the dotted name of an exception's class; of a builtin one, the plain name."""
    kind = type(exception)
    name, module = _read(_NAME, kind), _read(_MODULE, kind)
    return name if module == "builtins" else f"{module}.{name}"


def message_of(exception: BaseException) -> str:
    """Return what an exception says, capped."""
    try:
        return _storable(str(exception), MESSAGE_CHARACTERS)
    except BaseException as broken:
        return f"<str() of the exception failed with {_short_name(broken)}>"


def headline(type_name: object, message: object) -> str:
    """Return type and message of an error as one text; what is empty is left out with its colon.

    Both may come from an entry of a job's ``errors``, where by hand anything can be written.
    """
    texts = [str(each) for each in (type_name, message) if each is not None]
    return ": ".join(text for text in texts if text.strip())


def headline_of(exception: BaseException) -> str:
    """Return the dotted type of an exception and what it says, capped."""
    return headline(type_name(exception), message_of(exception))


def traceback_of(exception: BaseException) -> str:
    """Return an exception with its frames, causes and members as Python shows it, capped."""
    try:
        text = "".join(_Formatter().lines(exception))
        return _storable(text, TRACEBACK_CHARACTERS)
    except BaseException as broken:
        return f"<formatting the traceback failed with {_short_name(broken)}>"


def frames_of(exception: BaseException) -> TracebackType | None:
    """Return an exception's traceback object."""
    frames: TracebackType | None = _FRAMES(exception)
    return frames


def cause_of(exception: BaseException) -> BaseException | None:
    """Return what an exception was raised from."""
    cause: BaseException | None = _CAUSE(exception)
    return cause


def consists_of(exception: BaseException, kind: type[BaseException]) -> bool:
    """Whether an exception is of a kind, or a group that holds nothing else, at any depth."""
    found, groups, looked_at = False, [exception], 0
    while groups:
        each = groups.pop()
        looked_at += 1
        if issubclass(type(each), BaseExceptionGroup) and looked_at < 10_000:
            groups.extend(_members_of(each))
        elif issubclass(type(each), kind):
            found = True
        else:
            return False
    return found


def _read(descriptor: Callable[[type], Any], kind: type) -> str:
    try:
        value = descriptor(kind)
        if issubclass(type(value), str):
            return _storable(value, NAME_CHARACTERS)
    except BaseException:
        pass  # a class may be without a module
    return "?"


def _short_name(exception: BaseException) -> str:
    return type_name(exception).rpartition(".")[2]


def _members_of(group: BaseException) -> tuple[BaseException, ...]:
    members = _MEMBERS(group)
    return members if type(members) is tuple else ()


class _Formatter:
    """Writes the text of one exception and of what belongs to it."""

    def __init__(self) -> None:
        self._left = MAX_EXCEPTIONS

    def lines(self, exception: BaseException) -> Iterator[str]:
        """The whole chain, the first cause first."""
        chain = list(_chain(exception))
        for link, said in reversed(chain):
            yield from self._one(link)
            if said:
                yield said

    def _one(self, exception: BaseException) -> Iterator[str]:
        if self._left <= 0:
            yield "… more exceptions are left out …\n"
            return
        self._left -= 1
        frames = frames_of(exception)
        if frames is not None:
            yield "Traceback (most recent call last):\n"
            yield from _frames(frames)
        yield f"{headline_of(exception)}\n"
        yield from _notes(exception)
        if issubclass(type(exception), BaseExceptionGroup):
            yield from self._members(exception)

    def _members(self, group: BaseException) -> Iterator[str]:
        members = _members_of(group)
        for number, member in enumerate(members[:MAX_MEMBERS], 1):
            yield f"  +---------------- {number} ----------------\n"
            for line in "".join(self.lines(member)).splitlines():
                yield f"  | {line}\n"
        if len(members) > MAX_MEMBERS:
            yield f"  … and {len(members) - MAX_MEMBERS} more exceptions\n"


def _chain(exception: BaseException) -> Iterator[tuple[BaseException, str]]:
    """An exception and what led to it, each with what to say between it and the one before."""
    seen = {id(exception)}
    current: BaseException | None = exception
    said = ""
    while current is not None:
        yield current, said
        following, said = _CAUSE(current), _CAUSED
        if following is None and not _SUPPRESSED(current):
            following, said = _CONTEXT(current), _DURING
        if following is None or id(following) in seen or len(seen) >= MAX_LINKS:
            return
        seen.add(id(following))
        current = following


def _frames(frames: TracebackType) -> Iterator[str]:
    try:
        count = sum(1 for _ in _each(frames))
        remembered = _remembered(frames) if count <= FIRST_FRAMES + LAST_FRAMES else []
        for each in remembered or _formatted(frames, count):
            yield printable.cut(each, LINE_CHARACTERS)
    except BaseException as broken:  # for instance of a module's own loader
        yield f"  <reading the frames failed with {_short_name(broken)}>\n"


def _formatted(frames: TracebackType, count: int) -> list[str]:
    import traceback  # not at the top: programs that only defer do without

    if count <= FIRST_FRAMES + LAST_FRAMES:
        return traceback.format_tb(frames)
    left_out = f"  … {count - FIRST_FRAMES - LAST_FRAMES} frames are left out …\n"
    first = traceback.format_tb(frames, FIRST_FRAMES)
    return [*first, left_out, *traceback.format_tb(frames, -LAST_FRAMES)]


_Place = tuple[str, CodeType, int]  # equal code may stand in two files
_texts: dict[_Place, str] = {}


def _remembered(frames: TracebackType) -> list[str]:
    """Return the texts of these frames (rule 4); none if some are equal, as Python counts these."""
    places = [_place_of(each) for each in _each(frames)]
    if len(places) - len(set(places)) >= REPEATED:
        return []
    return [
        _texts.get(place) or _remember(place, each)
        for place, each in zip(places, _each(frames), strict=True)
    ]


def _place_of(frame: TracebackType) -> _Place:
    code = frame.tb_frame.f_code
    return code.co_filename, code, frame.tb_lasti


def _remember(place: _Place, frame: TracebackType) -> str:
    import traceback  # not at the top: programs that only defer do without

    text = printable.cut("".join(traceback.format_tb(frame, 1)), LINE_CHARACTERS)
    if len(_texts) >= REMEMBERED:
        _texts.clear()
    _texts[place] = text
    return text


def _each(frames: TracebackType | None) -> Iterator[TracebackType]:
    while frames is not None:
        yield frames
        frames = frames.tb_next


def _notes(exception: BaseException) -> Iterator[str]:
    try:
        notes = getattr(exception, "__notes__", None)
        if type(notes) is list:
            for note in notes[:MAX_MEMBERS]:
                yield f"{printable.cut(str(note), LINE_CHARACTERS)}\n"
    except BaseException as broken:
        yield f"<reading the notes failed with {_short_name(broken)}>\n"


def _storable(text: str, limit: int) -> str:
    """Cut the middle out of a long text, and replace what PostgreSQL cannot store."""
    if type(text) is str and len(text) <= limit and text.isascii() and "\0" not in text:
        return text  # most often
    text = printable.cut(text, limit)
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
