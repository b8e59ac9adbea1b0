"""Other queues on PostgreSQL, each at its best documented settings."""
from __future__ import annotations
PEERS: dict = {}
