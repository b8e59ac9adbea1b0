"""How long a worker holds a job that waits for a slot."""

from __future__ import annotations

from typing import Any

import pytest

from procrastinate.model.claiming.holding import (
    PATIENCE,
    Decision,
    HandBack,
    Hold,
    Look,
    after_look,
    decide,
)


@pytest.mark.parametrize(
    ("waited", "claim", "short", "decision"),
    [
        (0.0, 0.001, True, Hold(0.005)),
        (0.004, 0.001, True, Hold(0.001)),
        (0.005, 0.001, True, HandBack()),
        (0.005, 0.004, True, Hold(0.003)),
        (0.008, 0.004, True, HandBack()),
        (0.004, 0.001, False, Hold(0.001)),
        (0.005, 0.001, False, Look(PATIENCE - 0.005)),
        (PATIENCE, 0.001, False, HandBack()),
        (0.0, 10.0, False, Hold(PATIENCE)),
        (PATIENCE, 10.0, True, HandBack()),
    ],
    ids=[
        "it has only come",
        "almost 5 ms",
        "5 ms, and no ready job was left behind",
        "claims take longer",
        "two claims",
        "almost 5 ms, and there may be a backlog",
        "5 ms, and there may be a backlog",
        "too long in any case",
        "two claims are longer than the longest wait",
        "the longest wait, if claims are slow",
    ],
)
def test_a_job_waits_for_two_claims_unless_there_is_a_backlog(
    waited: float, claim: float, short: bool, decision: Decision
) -> None:
    assert _rounded(decide(waited, claim_takes=claim, short=short)) == _rounded(decision)


@pytest.mark.parametrize(
    ("waited", "looking", "any_ready", "decision"),
    [
        (0.006, 0.0005, False, HandBack()),
        (0.006, 0.0005, True, Hold(0.005)),
        (0.006, 0.002, True, Hold(0.02)),
        (0.006, 10.0, True, Hold(PATIENCE - 0.006)),
        (PATIENCE, 0.0005, True, HandBack()),
        (0.001, 0.0005, False, Hold(0.004)),
    ],
    ids=[
        "no job is ready: another worker may be idle",
        "there is a backlog: look again",
        "a slow look is repeated less often",
        "but no job waits longer than the longest wait",
        "too long in any case",
        "the job that had waited has started, and the next one has only come",
    ],
)
def test_a_look_decides(waited: float, looking: float, any_ready: bool, decision: Decision) -> None:
    found = after_look(waited, claim_takes=0.001, looking_took=looking, any_ready=any_ready)
    assert _rounded(found) == _rounded(decision)


def _rounded(decision: Decision) -> Any:
    seconds = getattr(decision, "seconds", None)
    return type(decision), None if seconds is None else round(seconds, 9)
