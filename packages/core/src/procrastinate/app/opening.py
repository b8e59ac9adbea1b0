"""What ``app.open_async()`` returns: a block that closes the app at its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

AppT = TypeVar("AppT")


class OpenedAsync(Generic[AppT]):
    """An app that is opened when this is awaited, or for a block when it is entered."""

    def __init__(
        self,
        app: AppT,
        open: Callable[[], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._app = app
        self._open = open
        self._close = close

    def __await__(self) -> Generator[Any, None, AppT]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> AppT:
        await self._open()
        return self._app

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()
