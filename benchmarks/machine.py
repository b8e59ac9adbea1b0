"""What the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import psutil

PACKAGES = (
    "procrastinate",
    "procrastinate-psycopg2",
    "procrastinate-aiopg",
    "procrastinate-sqlalchemy",
    "procrastinate-embedded",
    "aiopg",
    "psycopg2-binary",
    "sqlalchemy",
)


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge the figures."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total // 2**20,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(psutil.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that are measured."""
    return {name: importlib.metadata.version(name) for name in PACKAGES if _is_installed(name)}


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
