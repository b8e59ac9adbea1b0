"""asyncpg's classes as annotations see them: it has no types of its own."""

from __future__ import annotations

from typing import Any, TypeAlias

Connection: TypeAlias = Any  # asyncpg.Connection, or a pool's proxy of one
Pool: TypeAlias = Any  # asyncpg.Pool
