"""How long a worker holds a claimed job that waits for a slot: a pure decision, without a clock.

Rules

1. A claim that came short left no ready job behind. So another worker may have an idle slot, and
   no job waits claimed for longer than two claims or `LEAST_PATIENCE`.
2. A claim that brought all that it asked for may have left a backlog, and then no slot is idle
   anywhere. A job that has waited as long makes the worker look: if no job is ready, rule 1 holds;
   else it waits until the next look.
3. No job waits longer than `PATIENCE`, because the jobs behind it in the queue start before it.
4. If the first of the jobs that wait is handed back, all are: those behind it would wait longer.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_PATIENCE = 0.005  # seconds that a job may wait claimed while another worker is idle
CLAIMS_PATIENCE = 2.0  # claims that it may wait, if that is longer
PATIENCE = 1.0  # seconds that a job may wait claimed, whatever others do
LOOKING_SHARE = 0.1  # of the time: a queue's dead entries may make each look slow


@dataclass(frozen=True, slots=True)
class Hold:
    """Hold the jobs that wait, and decide again in ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """Ask whether any job is ready; without an answer decide again in ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class HandBack:
    """Hand all jobs back that wait."""


Decision = Hold | Look | HandBack


def decide(waited: float, *, claim_takes: float, short: bool) -> Decision:
    """Return what to do if the first job has waited for ``waited`` seconds.

    ``claim_takes`` seconds. ``short`` says that no ready job was left behind.
    """
    patience = _patience(claim_takes)
    if waited < min(patience, PATIENCE):
        return Hold(min(patience, PATIENCE) - waited)
    if short or waited >= PATIENCE:
        return HandBack()
    return Look(PATIENCE - waited)


def after_look(
    waited: float, *, claim_takes: float, looking_took: float, any_ready: bool
) -> Decision:
    """Return what to do after a look that took ``looking_took`` seconds."""
    if not any_ready:
        return decide(waited, claim_takes=claim_takes, short=True)
    if waited >= PATIENCE:
        return HandBack()
    pause = max(_patience(claim_takes), looking_took / LOOKING_SHARE)
    return Hold(min(pause, PATIENCE - waited))


def _patience(claim_takes: float) -> float:
    return max(CLAIMS_PATIENCE * claim_takes, LEAST_PATIENCE)
