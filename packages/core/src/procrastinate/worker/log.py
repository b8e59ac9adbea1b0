"""The worker's log."""

from __future__ import annotations

import logging

from procrastinate.observing.safe_log import SafeLog

logger = SafeLog(logging.getLogger("procrastinate.worker"))
