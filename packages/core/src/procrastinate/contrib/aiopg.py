"""`AiopgConnector`, from the package installed for the connector ``aiopg``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate import connectors

if TYPE_CHECKING:
    from procrastinate_aiopg import AiopgConnector
else:
    AiopgConnector = connectors.get("aiopg")

__all__ = ["AiopgConnector"]
