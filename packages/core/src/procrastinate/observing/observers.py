"""Telling observers, so that nothing that they do reaches a job.

Rules

1. Whatever an observer raises is caught, also what is no `Exception`, and logged once for each
   method and type of exception. `KeyboardInterrupt` is not the observer's: Ctrl-C came while it
   ran. In a call of the program's own it is raised once all observers were told; at a worker it
   interrupts the main thread, as Ctrl-C does, and no job.
2. A method that is not overridden is not called. An event that no observer sees is
   not even made.
3. `logging` is imported only to say that an observer failed: programs that only defer do without.
"""

from __future__ import annotations

import _thread
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from procrastinate import connectors
from procrastinate.errors import InvalidOption
from procrastinate.model.text import failure, printable
from procrastinate.model.text.printable import shown, type_of
from procrastinate.observing.observer import HOOKS, Observer

if TYPE_CHECKING:
    import logging

    from procrastinate.observing.safe_log import SafeLog

GROUP = "procrastinate.observers"
COMPLAINTS = 1_000  # kinds of failures of observers that are told


def _raise(interrupt: KeyboardInterrupt) -> None:
    raise interrupt


def interrupt_main(_: KeyboardInterrupt) -> None:
    """Let the main thread do what it does on Ctrl-C."""
    _thread.interrupt_main()


class Observers:
    """All observers of an app, or of a worker. ``interrupt`` is what follows rule 1 on Ctrl-C."""

    def __init__(
        self,
        given: Sequence[Observer] = (),
        *,
        interrupt: Callable[[KeyboardInterrupt], None] = _raise,
    ) -> None:
        self.given = tuple(given)
        self.interrupt = interrupt
        self._methods = {name: _overridden(self.given, name) for name in HOOKS}
        self._told: set[tuple[str, str, str]] = set()
        #: Whether one of them sees jobs that are deferred.
        self.sees_defers = self.sees("around_defer", "on_deferred")

    def sees(self, *hooks: str) -> bool:
        """Whether an observer has one of these methods."""
        return any(self._methods[hook] for hook in hooks)

    def methods(self, hook: str) -> Sequence[Callable[..., Any]]:
        """Return the methods of all observers that have one of this name."""
        return self._methods[hook]

    def tell(self, hook: str, event: object) -> None:
        """Call a method of all observers that have it."""
        interrupted: KeyboardInterrupt | None = None
        for method in self._methods[hook]:
            try:
                method(event)
            except KeyboardInterrupt as interrupt:
                interrupted = interrupt
            except BaseException as broken:
                self.complain(hook, method, broken)
        if interrupted is not None:
            self.interrupt(interrupted)

    def around(self, hook: str, subject: object) -> Around:
        """Return what is to be entered around a block: the context managers of all observers."""
        return Around(self, hook, subject)

    def left_out(self, what: str, reason: BaseException) -> None:
        """Log which part of jobs' meta is not stored, once for each kind. Never raises (rule 1)."""
        try:
            if self._is_new(("meta", what, failure.type_name(reason))):
                _log_left_out(what, reason)
        except BaseException:
            pass  # there is nowhere left to say it

    def complain(self, hook: str, method: Callable[..., Any], broken: BaseException) -> None:
        """Log what an observer raised, once for each kind. Never raises (rule 1)."""
        try:
            owner = type_of(getattr(method, "__self__", method))
            if self._is_new((owner, hook, failure.type_name(broken))):
                _log_failure(f"{owner}.{hook}", broken)
        except BaseException:
            pass  # there is nowhere left to say it

    def _is_new(self, kind: tuple[str, str, str]) -> bool:
        if kind in self._told or len(self._told) >= COMPLAINTS:
            return False
        self._told.add(kind)
        return True


def _log() -> SafeLog:
    import logging  # rule 3

    from procrastinate.observing.safe_log import SafeLog

    return SafeLog(logging.getLogger("procrastinate.observers"))


def _log_left_out(what: str, reason: BaseException) -> None:
    _log().warning(
        "part of the meta that observers gave to jobs is not stored: %s: %s",
        what,
        printable.line(failure.headline_of(reason), 500),
        extra={"action": "meta_left_out"},
    )


def _log_failure(which: str, broken: BaseException) -> None:
    import logging  # rule 3

    _log().failure(
        *(logging.ERROR, "the observer's %s failed, which changes nothing for the jobs: %s", which),
        printable.line(failure.headline_of(broken)),
        exception=broken,
        traceback=failure.traceback_of(broken),
        extra={"action": "observer_failed"},
    )


#: Blocks that began before a fork: they go on in the other process, and end there.
_FORKED: list[Around] = []


class Around:
    """Context managers of observers around a block, none of which can change what it does."""

    __slots__ = ("_entered", "_hook", "_observers", "_process", "_subject")

    def __init__(self, observers: Observers, hook: str, subject: object) -> None:
        self._observers = observers
        self._hook = hook
        self._subject = subject
        self._process = os.getpid()
        self._entered: list[tuple[Callable[..., Any], Any]] = []

    def __enter__(self) -> None:
        for method in self._observers.methods(self._hook):
            try:
                manager = method(self._subject)
                manager.__enter__()
            except KeyboardInterrupt as interrupt:
                self._interrupted(interrupt)
            except BaseException as broken:
                self._observers.complain(self._hook, method, broken)
            else:
                self._entered.append((method, manager))

    def _interrupted(self, interrupt: KeyboardInterrupt) -> None:
        try:
            self._observers.interrupt(interrupt)
        except KeyboardInterrupt:  # the block does not begin
            self.__exit__(type(interrupt), interrupt, interrupt.__traceback__)
            raise

    def __exit__(self, *raised: Any) -> None:
        if os.getpid() != self._process:
            _FORKED.append(self)  # alive, because a generator that is dropped runs its `finally`
            return
        interrupted: KeyboardInterrupt | None = None
        for method, manager in reversed(self._entered):
            try:
                manager.__exit__(*raised)
            except BaseException as broken:
                if broken is raised[1]:
                    continue
                if isinstance(broken, KeyboardInterrupt):
                    interrupted = broken
                else:
                    self._observers.complain(self._hook, method, broken)
        if interrupted is not None:
            self._observers.interrupt(interrupted)
        if raised[1] is not None:  # without the observers' frames
            BaseException.with_traceback(raised[1], raised[2])


def _overridden(given: Sequence[Observer], hook: str) -> tuple[Callable[..., Any], ...]:
    methods = (getattr(each, hook) for each in given)
    own = getattr(Observer, hook)
    return tuple(each for each in methods if getattr(each, "__func__", None) is not own)


NOBODY = Observers()


# From what a user gives


def observers_of(given: object) -> Observers:
    """Return the observers of an app: instances, or names of installed ones.

    Raises `InvalidOption` for anything else, and `ConnectorBroken` for one that cannot be imported.
    """
    if given is None:
        return NOBODY
    if isinstance(given, str | Observer) or not isinstance(given, Iterable):
        raise InvalidOption(f"observers must be a list of observers, not {shown(given)}")
    return Observers([_observer(each) for each in given])


def _observer(given: object) -> Observer:
    if isinstance(given, str):
        return _installed(given)
    return _checked(given, f"observers has {shown(given)}")


def _checked(given: object, what: str) -> Observer:
    if not isinstance(given, Observer):
        hint = ": make an instance of it" if isinstance(given, type) else ""
        raise InvalidOption(f"{what}, which is no procrastinate.Observer{hint}")
    _check_names(given)
    for hook in HOOKS:
        if inspect.iscoroutinefunction(getattr(given, hook)):
            raise InvalidOption(
                f"{type_of(given)}.{hook} is `async def`, and observers are called by plain"
                " functions: write `def`"
            )
    return given


def _check_names(given: Observer) -> None:
    """Raise `InvalidOption` for a method that looks like a hook and is none: it is misspelt.

    Only classes below `Observer` are looked at: other base classes may have such methods.
    """
    classes = [each for each in type(given).__mro__ if issubclass(each, Observer)]
    for name in sorted({name for each in classes for name in vars(each)}):
        if name.startswith(("on_", "around_")) and name not in HOOKS:
            raise InvalidOption(
                f"{type_of(given)}.{name} would never be called, because there is no such event:"
                f" {_advice(name)}"
            )


def _advice(name: str) -> str:
    from difflib import get_close_matches  # not at the top: programs that are right do without

    close = get_close_matches(name, HOOKS, n=1)
    if close:
        return f"do you mean {close[0]}? If it is a method of your own, let its name begin with _"
    return f"the events are {', '.join(HOOKS)}; let the name of a method of your own begin with _"


def _installed(name: str) -> Observer:
    found = connectors.entry_points(GROUP)
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise InvalidOption(
            f"there is no observer named {shown(name)} (installed: {known}): install the package"
            " that provides it, or correct the name"
        )
    loaded: Any = connectors.load(found[name][0], "observer")
    return _checked(loaded() if callable(loaded) else loaded, f"{name} provides {shown(loaded)}")


def log_is_for_debug() -> bool:
    """Whether lines at DEBUG about jobs are logged.

    A program that never imported `logging` has set up no log (rule 3).
    """
    if "logging" not in sys.modules:
        return False
    logger, debug = _logger()
    return logger.isEnabledFor(debug)


@functools.cache
def _logger() -> tuple[logging.Logger, int]:
    import logging  # rule 3

    return logging.getLogger("procrastinate.jobs"), logging.DEBUG
