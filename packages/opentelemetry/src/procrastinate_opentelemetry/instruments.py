"""The metrics of the messaging conventions that make sense for jobs."""

from __future__ import annotations

from opentelemetry.metrics import Histogram, Meter

from procrastinate_opentelemetry import conventions


class Instruments:
    """Two counters of jobs, and the durations of defers and attempts."""

    def __init__(self, meter: Meter) -> None:
        self.sent = meter.create_counter(
            conventions.SENT,
            unit="{message}",
            description="Number of messages producer attempted to send to the broker.",
        )
        self.consumed = meter.create_counter(
            conventions.CONSUMED,
            unit="{message}",
            description="Number of messages that were delivered to the application.",
        )
        self.operation_duration = _duration(
            meter,
            conventions.OPERATION_DURATION,
            "Duration of messaging operation initiated by a producer or consumer client.",
        )
        self.process_duration = _duration(
            meter, conventions.PROCESS_DURATION, "Duration of processing operation."
        )


def _duration(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name,
        unit="s",
        description=description,
        explicit_bucket_boundaries_advisory=conventions.SECONDS,
    )
