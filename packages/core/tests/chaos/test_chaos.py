"""Workers in a storm of kills, cuts, freezes and crashes: what is stored at the end is right.

``PROCRASTINATE_CHAOS_SECONDS`` makes the storm last longer than a few seconds.
``PROCRASTINATE_CHAOS_SEED`` draws the same jobs and troubles again; their timing is never the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STORM = Path(__file__).with_name("storm.py")
SECONDS = float(os.environ.get("PROCRASTINATE_CHAOS_SECONDS") or 6)
SEED = os.environ.get("PROCRASTINATE_CHAOS_SEED")
AFTERWARDS = 150  # seconds at the most for the last jobs and the workers to end


@pytest.mark.timeout(SECONDS + AFTERWARDS + 30)
def test_whatever_happens_every_job_ends_and_none_that_finished_runs_again() -> None:
    # Not measured: the workers are killed before they could tell, and start often.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    storm = subprocess.run(
        [sys.executable, str(STORM), str(SECONDS), *([SEED] if SEED else [])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS + AFTERWARDS,
    )

    assert storm.returncode == 0, f"{storm.stdout[-20_000:]}\n{storm.stderr[-5_000:]}"
