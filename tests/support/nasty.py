"""Exceptions that fight back when somebody looks at them, by name: each is made anew when asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class Sly(BaseException):
    """What the traps raise: an exception that `except Exception` does not catch."""


def _trap(*_: Any, **__: Any) -> Any:
    raise Sly("trap")


def _exit(*_: Any, **__: Any) -> Any:
    raise SystemExit(9)


def _interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def _recurse(it: object) -> Any:
    """Recurse for ever: with an argument, as Python 3.13.0 counts no other calls, and crashes."""
    return _recurse(it)


def _out_of_memory(*_: Any, **__: Any) -> Any:
    raise MemoryError


class Mirror:
    """Two of these show each other, and so neither can be shown."""

    other: Mirror

    def __repr__(self) -> str:
        return f"<{self.other!r}>"


def mirrors() -> Mirror:
    one, other = Mirror(), Mirror()
    one.other, other.other = other, one
    return one


class NastyText(str):
    """A text whose every method is a trap."""

    __slots__ = ()
    __len__ = __getitem__ = __iter__ = __str__ = __repr__ = __format__ = _trap
    __eq__ = __hash__ = __add__ = __radd__ = __mod__ = __contains__ = _trap
    encode = replace = split = splitlines = join = strip = rstrip = isascii = _trap
    isprintable = format = partition = rpartition = startswith = _trap


def _with(base: type[BaseException] = Exception, /, **members: Any) -> BaseException:
    kind = type("Nasty", (base,), members)
    return kind("group", [ValueError("in it")]) if issubclass(base, BaseExceptionGroup) else kind()


def _of_mirrors() -> BaseException:
    return ValueError(mirrors())


def _holding_itself() -> BaseException:
    exception = ValueError()
    exception.args = (exception,)
    return exception


def _nasty_meta() -> BaseException:
    names = ("__instancecheck__", "__repr__", "__eq__", "__hash__")
    meta: Any = type("Meta", (type,), dict.fromkeys((*names, "__getattribute__"), _trap))
    made: BaseException = meta("Nasty", (Exception,), {})("meta")
    return made


def _nasty_module() -> BaseException:
    return _with(__module__=NastyText("module"))


def _nasty_notes() -> BaseException:
    exception = ValueError("noted")
    exception.__notes__ = [mirrors(), NastyText("note")]  # type: ignore[attr-defined]
    return exception


def _caused_by(cause: BaseException) -> BaseException:
    exception = ValueError("caused")
    exception.__cause__ = cause
    return exception


def _circle() -> BaseException:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def _long_chain() -> BaseException:
    exception = ValueError("first")
    for number in range(20_000):
        exception = _caused_by(exception)
        exception.args = (number,)
    return exception


def _wide_group() -> BaseException:
    return ExceptionGroup("wide", [ValueError(n) for n in range(20_000)])


def _deep_group() -> BaseException:
    exception: Exception = ValueError("deep")
    for _ in range(5_000):
        exception = ExceptionGroup("in", [exception])
    return exception


def _deep_recursion() -> BaseException:
    try:
        _recurse(None)
    except RecursionError as exc:
        return exc
    raise AssertionError


def _told(name: str) -> BaseException:
    """An exception whose attribute of that name is a property that raises."""
    return _with(**{name: property(_trap)})


_ATTRIBUTES = (
    *("__class__", "__cause__", "__context__", "__suppress_context__", "__traceback__"),
    *("__notes__", "__dict__", "args", "with_traceback", "add_note"),
)

#: Each makes one exception.
EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    "mutual repr": _of_mirrors,
    "args holds itself": _holding_itself,
    "str raises": lambda: _with(__str__=_trap),
    "str exits": lambda: _with(__str__=_exit),
    "str interrupts": lambda: _with(__str__=_interrupt),
    "str recurses": lambda: _with(__str__=_recurse),
    "str runs out of memory": lambda: _with(__str__=_out_of_memory),
    "str is no text": lambda: _with(__str__=lambda self: 3),
    "str is a nasty text": lambda: _with(__str__=lambda self: NastyText("x" * 5_000)),
    "repr and str raise": lambda: _with(__str__=_trap, __repr__=_trap),
    "repr and str recurse": lambda: _with(__str__=_recurse, __repr__=_recurse),
    "eq and hash raise": lambda: _with(__eq__=_trap, __hash__=_trap),
    "eq says yes": lambda: _with(__eq__=lambda self, other: True, __hash__=None),
    "no truth": lambda: _with(__bool__=_trap, __len__=_trap),
    "getattribute raises": lambda: _with(__getattribute__=_trap),
    "setattr raises": lambda: _with(__setattr__=_trap, __delattr__=_trap),
    "reduce and copy raise": lambda: _with(__reduce_ex__=_trap, __copy__=_trap),
    **{f"property {name}": (lambda name=name: _told(name)) for name in _ATTRIBUTES},
    "nasty metaclass": _nasty_meta,
    "nasty module name": _nasty_module,
    "nasty notes": _nasty_notes,
    "nasty cause": lambda: _caused_by(_with(__str__=_exit)),
    "circle of causes": _circle,
    "20,000 causes": _long_chain,
    "20,000 in a group": _wide_group,
    "group 5,000 deep": _deep_group,
    "group of nasty ones": lambda: BaseExceptionGroup("g", [_with(__str__=_exit), _of_mirrors()]),
    "group, traps": lambda: _with(
        ExceptionGroup, __str__=_trap, split=_trap, derive=_trap, exceptions=property(_trap)
    ),
    "recursion to the limit": _deep_recursion,
    "SystemExit of mirrors": lambda: SystemExit(mirrors()),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "StopIteration": lambda: StopIteration(mirrors()),
    "StopAsyncIteration": StopAsyncIteration,
    "MemoryError": MemoryError,
    "BaseException": lambda: BaseException("base"),
    "50 MB": lambda: ValueError("x" * 50_000_000),
    "50 MB of arguments": lambda: KeyError("x" * 50_000_000),
    "long class name": lambda: type("N" * 100_000, (Exception,), {})("long"),
    "control characters": lambda: ValueError("a\nb\x1b[31m\x9b\u202e\0\udcff"),
    "control characters in the name": lambda: type("N\n\x1b", (Exception,), {})(),
    "syntax error": lambda: SyntaxError("no", (mirrors(), 1, 1, mirrors())),
    "import error": lambda: ImportError("no", name=mirrors(), path=mirrors()),
    "unicode error": lambda: UnicodeDecodeError("utf-8", b"x" * 100_000, 0, 1, "no"),
    "os error": lambda: OSError(mirrors(), mirrors(), mirrors()),
}
