"""The log on stderr: text for people, or one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
from datetime import UTC, datetime
from typing import Any

from procrastinate.model.text import printable

LEVELS = ("debug", "info", "warning", "error", "critical")
FORMATS = ("text", "json")

#: What every record has: all else came from the caller's ``extra=``.
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def configure(level: str, log_format: str, verbose: int) -> None:
    """Send the log to stderr, from ``level`` on.

    One ``-v`` lowers procrastinate's own level to debug, two that of everything.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    chosen = logging.DEBUG if verbose > 1 else getattr(logging, level.upper())
    logging.basicConfig(handlers=[handler], level=chosen, force=True)
    logging.captureWarnings(True)
    logging.getLogger("procrastinate").setLevel(logging.DEBUG if verbose else logging.NOTSET)


class TextFormatter(logging.Formatter):
    """Local time, level, logger, message; a traceback below it where there is one.

    Control characters are escaped, and all lines of a record but the first are indented, so that
    no text can pass for another record.
    """

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        first, newline, rest = super().format(record).partition("\n")
        shown = printable.block(first, indent="")
        return f"{shown}\n{printable.block(textwrap.dedent(rest))}" if newline else shown


class JsonFormatter(logging.Formatter):
    """One line: time (ISO 8601, UTC), level, logger, message, fields of ``extra``, exception."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        line: dict[str, Any] = {**fields, **{k: v for k, v in extra.items() if k not in fields}}
        if record.exc_info:
            # The worker has formatted a job's exception already, capped and indented.
            text = record.exc_text or self.formatException(record.exc_info)
            line["exception"] = textwrap.dedent(text)
        if record.stack_info:
            line["stack"] = record.stack_info
        return printable.json_line(json.dumps(line, default=str, ensure_ascii=False, skipkeys=True))
