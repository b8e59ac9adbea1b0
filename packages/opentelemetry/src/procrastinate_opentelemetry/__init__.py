"""Traces and metrics of procrastinate's jobs, by OpenTelemetry's messaging conventions."""

from __future__ import annotations

from procrastinate_opentelemetry.observer import OpenTelemetryObserver

__all__ = ["OpenTelemetryObserver", "__version__"]

__version__ = "4.0.0"
