"""What a campaign is remembered by: JSON, and a page with its table."""

from __future__ import annotations

import json
import os
import pickle
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chaos import books
from chaos.campaign import Result
from chaos.guard import ROOT
from chaos.known import is_known
from chaos.options import Options
from chaos.records import Complaint

SHOWN = 5  # complaints of one rule that are shown in full


def document(options: Options, result: Result, complaints: Sequence[Complaint]) -> dict[str, Any]:
    """Return all that is worth keeping."""
    struck = Counter(each.kind for each in result.campaign.troubles if each.kind)
    seen = Counter(each.kind for each in result.campaign.troubles if each.kind and each.seen)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "seed": options.seed,
        "connector": options.connector,
        "plant": options.plant,
        "machine": machine(),
        "workers": {
            "stalled_worker_timeout": options.stalled,
            "update_heartbeat_interval": options.heartbeat,
            "started": result.workers,
        },
        "seconds": round(result.seconds, 1),
        "faults": {"planned": result.planned, "seen": sum(seen.values())},
        "kinds": {kind: {"struck": struck[kind], "seen": seen[kind]} for kind in sorted(struck)},
        "jobs": dict(books.summary(result.campaign)),
        "complaints": dict(Counter(each.rule for each in complaints)),
        "known": sum(is_known(each) for each in complaints),
        "troubles": [
            f"{each.began:%H:%M:%S.%f} to {each.ended:%H:%M:%S.%f} {each.name}"
            f" {'' if each.seen else '(no effect seen)'}"
            for each in sorted(result.campaign.troubles, key=lambda each: each.began)
        ],
        "texts": [f"{each.rule}: {each.text}" for each in complaints[:200]],
    }


def commit() -> str:
    """Return the short name of the commit that was tried, or "unknown" outside of a repository."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """Return which kind of machine it was, and nothing that names it."""
    return {
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "procrastinate": version("procrastinate"),
    }


def lines(found: Mapping[str, Any], complaints: Sequence[Complaint]) -> list[str]:
    """Return what is printed."""
    told = [f"faults: {found['faults']['seen']} seen of {found['faults']['planned']} planned"]
    told += [f"  {kind}: {each['seen']}/{each['struck']}" for kind, each in found["kinds"].items()]
    told += ["jobs: " + ", ".join(f"{name} {count}" for name, count in found["jobs"].items())]
    shown: Counter[str] = Counter()
    for each in complaints:
        shown[each.rule] += 1
        if shown[each.rule] <= SHOWN:
            mark = "known: " if is_known(each) else ""
            told.append(f"{mark}{each.rule}: {each.text}")
    told.append(f"complaints: {found['complaints'] or 'none'}")
    return told


def page(found: Mapping[str, Any]) -> str:
    """Return the tables of the page."""
    jobs, faults = found["jobs"], found["faults"]
    rows = [
        ("date, commit, seed", f"{found['date']}, {found['commit']}, {found['seed']}"),
        ("machine", f"{found['machine']['cores']} cores, {found['machine']['system']}"),
        ("Python", found["machine"]["python"]),
        ("the workers' connector", found["connector"]),
        ("duration", f"{found['seconds'] / 60:.1f} minutes"),
        ("faults whose effect was seen", f"{faults['seen']} of {faults['planned']}"),
        ("worker processes started", str(found["workers"]["started"])),
        *((f"jobs: {name}", f"{count:,}") for name, count in jobs.items()),
        ("complaints", str(sum(found["complaints"].values()))),
    ]
    text = ["| campaign | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    text += ["| fault | struck | its effect was seen |", "|---|---|---|"]
    text += [f"| {kind} | {n['struck']} | {n['seen']} |" for kind, n in found["kinds"].items()]
    return "\n".join(text) + "\n"


def write(options: Options, found: Mapping[str, Any]) -> None:
    """Write the files that were asked for."""
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.markdown is not None:
        options.markdown.write_text(page(found))


def keep(result: Result) -> None:
    """Keep a campaign beside its logs, so that its books can be checked again."""
    (result.logs / "campaign.pickle").write_bytes(pickle.dumps(result))


def kept(path: Path) -> Result:
    """Return a campaign that was kept. The file is trusted: it is one that `keep` wrote."""
    result = pickle.loads(path.read_bytes())
    assert isinstance(result, Result)
    return result
