"""Procrastinate's connector for psycopg2: classic synchronous I/O, for threads and WSGI."""

from __future__ import annotations

from procrastinate_psycopg2.connector import Psycopg2Connector

__all__ = ["Psycopg2Connector"]
