"""Jobs, where releases up to 3.x had them; now in `procrastinate` itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate.app.deferring import JobDeferrer as JobDeferrer
from procrastinate.former import missing_from
from procrastinate.model.job import Job as Job
from procrastinate.model.job import Status as Status

DEFAULT_QUEUE = "default"
DEFAULT_PRIORITY = 0

if not TYPE_CHECKING:  # or every name would be in it
    __getattr__ = missing_from(__name__)
