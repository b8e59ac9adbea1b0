"""Secrets are not shown, and a function of ``redact=`` that fails is logged."""

from __future__ import annotations

import logging

from procrastinate.model.text import redacting
from procrastinate.model.text.redacting import HIDDEN, Redact

__all__ = ["HIDDEN", "Redact", "Redaction"]

logger = logging.getLogger(__name__)


class Redaction(redacting.Redaction):
    """What hides secrets, and logs why it shows nothing of a job."""

    def failed(self, task_name: str, exc: Exception) -> None:
        logger.error(
            "redact= failed for a job of %s, of which nothing is shown", task_name, exc_info=exc
        )
