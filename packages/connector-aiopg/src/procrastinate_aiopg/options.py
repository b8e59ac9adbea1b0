"""The connector's arguments: whose each is, what it may be, and its synchronous counterpart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiopg

from procrastinate.connector_tools.sizes import check_seconds, check_sizes, is_number
from procrastinate.connector_tools.urls import shown
from procrastinate.errors import ConfigurationError, InvalidOption
from procrastinate_aiopg.connecting import ConnectOptions
from procrastinate_psycopg2.dsn import FACTORIES, check_dsn, for_our_own, without_factories

#: aiopg's switches. Nothing of ours needs what they set up, and hstore costs a query each time.
_SWITCHES: Mapping[str, bool] = {
    "enable_json": False,
    "enable_hstore": False,
    "enable_uuid": False,
    "echo": False,
}

URL_OPTIONS: dict[str, Callable[[str], Any]] = {
    "minsize": int,
    "maxsize": int,
    "timeout": float,
    "pool_recycle": float,
    "pool_timeout": float,
    "schema": str,
    "listen_dsn": str,
}


@dataclass(frozen=True)
class Options:
    """What `AiopgConnector` was given, checked."""

    connect: ConnectOptions
    listen: ConnectOptions | None
    minsize: int
    maxsize: int
    recycle: float
    pool_timeout: float | None

    @property
    def names_a_database(self) -> bool:
        """Whether any argument says where to connect to."""
        return any(self.connect.arguments.get(k) is not None for k in self._where())

    def _where(self) -> set[str]:
        return set(self.connect.arguments) - FACTORIES

    @property
    def shown(self) -> str:
        """What may be shown of the connection's arguments."""
        return shown(check_dsn(**without_factories(self.connect.arguments)))


def read_options(
    *,
    minsize: Any,
    maxsize: Any,
    timeout: Any,
    pool_recycle: Any,
    pool_timeout: Any,
    on_connect: Any,
    listen_dsn: Any,
    arguments: Mapping[str, Any],
) -> Options:
    """Check the arguments. Raises `InvalidOption`, `ConfigurationError` for a malformed DSN."""
    check_sizes(least=("minsize", minsize), most=("maxsize", maxsize), unlimited=True)
    check_seconds("timeout", timeout)
    if pool_timeout is not None:
        check_seconds("pool_timeout", pool_timeout)
    if not is_number(pool_recycle):
        raise InvalidOption(f"pool_recycle={pool_recycle!r} is not a number of seconds")
    if on_connect is not None and not callable(on_connect):
        raise InvalidOption(f"on_connect={on_connect!r} is not a coroutine function")
    psycopg2_arguments = {k: v for k, v in arguments.items() if k not in _SWITCHES}
    check_dsn(**without_factories(psycopg2_arguments))
    switches = {k: bool(arguments.get(k, default)) for k, default in _SWITCHES.items()}
    return Options(
        connect=ConnectOptions(psycopg2_arguments, timeout, on_connect, switches),
        listen=_listen_options(listen_dsn, timeout),
        minsize=minsize,
        maxsize=maxsize,
        recycle=pool_recycle,
        pool_timeout=pool_timeout,
    )


def _listen_options(listen_dsn: Any, timeout: float) -> ConnectOptions | None:
    if listen_dsn is None:
        return None
    if not isinstance(listen_dsn, str):
        raise InvalidOption(f"listen_dsn={listen_dsn!r} is not a connection string")
    check_dsn(listen_dsn)
    return ConnectOptions({"dsn": listen_dsn}, timeout, None, _SWITCHES)


def sibling_options(
    options: Options, pool: aiopg.Pool | None, max_connections: int, connect_timeout: float | None
) -> Options:
    """Return the options of an `AiopgConnector` to the same database, with a pool of another size.

    That is the application's ``pool``'s database, if there is one and we have nothing of our own.
    """
    connect = options.connect
    if pool is not None and not options.names_a_database:
        connect = replace(connect, arguments=_arguments_of(pool))
    if connect_timeout is not None:
        connect = replace(connect, timeout=min(connect.timeout, connect_timeout))
    return replace(options, connect=connect, minsize=0, maxsize=max_connections)


def sync_arguments(
    options: Options, pool: aiopg.Pool | None, connect_timeout: float | None
) -> dict[str, Any]:
    """Return what a `Psycopg2Connector` to the same database is made with.

    That is the application's ``pool``'s, if there is one and we have nothing of our own. It makes
    connections when they are needed: with ``minsize`` of them at once, each of a worker's
    companions, which use one, would hold as many.
    """
    if pool is not None and not options.names_a_database:
        return for_our_own(_arguments_of(pool), connect_timeout=connect_timeout)
    timeout = options.connect.timeout if connect_timeout is None else connect_timeout
    arguments = for_our_own(
        options.connect.arguments, connect_timeout=min(timeout, options.connect.timeout)
    )
    sizes = {"minconn": min(options.minsize, 1)}
    if options.maxsize:
        sizes["maxconn"] = options.maxsize
    return {**arguments, **sizes, "pool_timeout": options.pool_timeout}


def _arguments_of(pool: aiopg.Pool) -> dict[str, Any]:
    # aiopg has no public word for where a pool connects to.
    try:
        dsn, arguments = vars(pool)["_dsn"], vars(pool)["_conn_kwargs"]
    except (TypeError, KeyError) as exc:
        raise ConfigurationError(
            "the aiopg pool given to open_async() does not say which database it connects to:"
            " give AiopgConnector the same dsn= for synchronous calls"
        ) from exc
    unwanted = {"async", "async_", "loop"}
    return {"dsn": dsn} | {k: v for k, v in arguments.items() if k not in unwanted}
