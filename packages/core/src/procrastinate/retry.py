"""Retry strategies, where releases up to 3.x had them; now in `procrastinate` itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate.app.blueprint import Retry as RetryValue
from procrastinate.former import missing_from
from procrastinate.model.endings.retry import BaseRetryStrategy, RetryDecision, RetryStrategy

__all__ = ["BaseRetryStrategy", "RetryDecision", "RetryStrategy", "RetryValue"]

if not TYPE_CHECKING:  # or every name would be in it
    __getattr__ = missing_from(__name__)
