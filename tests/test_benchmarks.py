"""The benchmark harness runs, and says what it found in the form that its README promises.

Nothing here asserts how fast anything is: sizes are tiny, and the tests' server is not durable.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results
from benchmarks.__main__ import main
from benchmarks.against import Compared
from benchmarks.lengths import mean_of, seconds_of
from benchmarks.measures import (
    Kind,
    Measure,
    Sample,
    Summary,
    at_least,
    at_most,
    quantile,
    summary_of,
)
from benchmarks.options import RESULTS, Options, parse
from benchmarks.peers import PEERS, environments
from benchmarks.workload import FULL, QUICK, TINY, Bench, Round, Workload
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.locks import out_of_order


@pytest.fixture
def run(procrastinate_server: Any, tmp_path: Path) -> Any:
    """Run the program on the tests' server; returns its exit code and the JSON."""

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        path = tmp_path / "found.json"
        dsn = procrastinate_server.dsn
        code = main(["--tiny", "--dsn", dsn, "--json", str(path), *arguments])
        return code, json.loads(path.read_text())

    return run


# --- measures -------------------------------------------------------------------------------------


def test_a_ratio_is_the_median_of_the_pairs_and_not_the_ratio_of_the_medians() -> None:
    samples = [Sample(8.0, 10.0), Sample(90.0, 100.0), Sample(1.0, 2.0)]
    assert summary_of(samples) == Summary(median=0.8, low=0.5, high=0.9, ours=8.0, limit=10.0)


def test_an_amount_has_no_limit() -> None:
    samples = [Sample(70.0), Sample(60.0)]
    assert summary_of(samples) == Summary(median=65.0, low=60.0, high=70.0, ours=65.0, limit=None)


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [
        (at_least(0.8), 0.8, True),
        (at_least(0.8), 0.79, False),
        (at_most(2), 2.0, True),
        (at_most(2), 2.01, False),
    ],
)
def test_a_target_includes_its_bound(target: Any, value: float, met: bool) -> None:
    assert target.is_met_by(value) is met


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [quantile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert quantile([3.0], 0.99) == 3.0


@pytest.mark.parametrize(
    ("notes", "wrong"),
    [
        ([["a", 1, "begins"], ["b", 1, "begins"], ["a", 1, "ends"], ["b", 1, "ends"]], 0),
        ([["a", 2, "begins"], ["a", 2, "ends"], ["a", 1, "begins"], ["a", 1, "ends"]], 4),
        ([["a", 1, "begins"], ["a", 2, "begins"], ["a", 1, "ends"], ["a", 2, "ends"]], 2),
        ([["a", 1, "begins"]], 1),
    ],
    ids=["in order", "the wrong way round", "side by side", "never ended"],
)
def test_jobs_of_a_lock_that_overlap_or_overtake_are_counted(notes: Any, wrong: int) -> None:
    assert out_of_order(notes) == wrong


@pytest.mark.parametrize(
    ("pattern", "mean", "lengths"),
    [
        ("5ms", 0.005, {0.005: 1_000}),
        ("5ms,1/20:500ms", 0.02975, {0.005: 952, 0.5: 48}),
    ],
)
def test_jobs_that_take_time_are_the_same_for_the_limit_and_for_us(
    pattern: str, mean: float, lengths: dict[float, int]
) -> None:
    assert Counter(seconds_of(pattern, 1_000)) == lengths
    assert seconds_of(pattern, 1_000) == seconds_of(pattern, 1_000)
    assert mean_of(pattern) == pytest.approx(mean)


def test_scattered_lengths_have_the_mean_that_they_are_named_for() -> None:
    assert statistics.mean(seconds_of("exp:5ms", 10_000)) == pytest.approx(0.005, rel=0.05)
    assert mean_of("exp:5ms") == 0.005


@pytest.mark.parametrize("pattern", ["", "5", "5ms,", "5ms,1/20", "exp:", "-5ms"])
def test_what_is_no_pattern_of_lengths_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no pattern of lengths"):
        seconds_of(pattern, 1)


# --- options --------------------------------------------------------------------------------------


def test_without_options_everything_runs_at_full_size() -> None:
    assert parse([], [*WORKLOADS], [*PEERS]) == Options(
        only=tuple(f"W{number}" for number in range(1, 25)),
        scale=FULL,
        repeat=FULL.repeat,
        dsn=None,
        json=RESULTS / "bench.json",
        chart=RESULTS / "bench",
        peers=False,
        against=None,
        show_list=False,
    )


def test_options_that_are_given() -> None:
    arguments = ["--only", "w6, W1", "--quick", "--repeat", "7", "--dsn", "host=x"]
    arguments += ["--json", "a/b.json", "--chart", "c.png"]
    assert parse(arguments, [*WORKLOADS], [*PEERS]) == Options(
        only=("W6", "W1"),
        scale=QUICK,
        repeat=7,
        dsn="host=x",
        json=Path("a/b.json"),
        chart=Path("c"),
        peers=False,
        against=None,
        show_list=False,
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--only", "W99"], "'w99' is none of W1, "),
        (["--only", ","], "names at least one"),
        (["--only", "saq"], "'saq' is no workload (it needs --peers)"),
        (["--only", "W1", "--peers"], "'W1' is no peer"),
        (["--repeat", "0"], "0 is not in the range"),
        (["--repeat", "many"], "'many' is not a valid integer"),
        (["--quick", "--tiny"], "--quick and --tiny"),
        (["--chart", "x.png", "--no-chart"], "--chart and --no-chart"),
        (["--dsn", " "], "--dsn is empty"),
        (["--against", "nowhere.whl"], "'nowhere.whl' does not exist"),
        (["--against", ".", "--peers"], "--against and --peers"),
        (["--fast"], "--fast"),
        (["W1"], "W1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err[:7]) == ("", 1, "bench: ")
    assert named in err


def test_a_server_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "W1", "--dsn", "host=/nowhere"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "no server to measure on" in err


def test_the_list_names_every_workload_and_peer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    assert [name for name in (*WORKLOADS, *PEERS) if name not in out] == []


# --- what is written ------------------------------------------------------------------------------


class Example(Workload):
    key = "W0"
    title = "an example"
    short = "example"
    limit = "the limit"
    timed = "nothing"
    measures = (
        Measure("speed", "jobs/s", at_least(0.5), against="plain"),
        Measure("memory", "MiB", at_most(80), Kind.AMOUNT),
        Measure("beside", "ms", None, Kind.AMOUNT),
        Measure("not taken", "ms", at_most(1), Kind.AMOUNT),
    )

    def run(self, bench: Bench) -> Round:
        raise NotImplementedError


@pytest.fixture
def found() -> dict[str, Any]:
    outcome = results.Outcome(Example())
    outcome.add({"speed": Sample(4.0, 10.0), "memory": Sample(70.0), "beside": Sample(3.0)})
    outcome.add({"speed": Sample(6.0, 10.0), "memory": Sample(90.0)})
    return results.document(
        scale="tiny",
        repeat=2,
        machine={"cpu": "some", "cores": 2, "python": "3.11.7"},
        packages={"procrastinate": "4.0.0"},
        server={"server_version": "18.1", "fsync": "on"},
        outcomes=[outcome],
    )


def test_the_json_holds_every_sample_and_what_follows_from_them(found: dict[str, Any]) -> None:
    taken_at = found.pop("taken_at")
    assert taken_at.endswith("+00:00")
    amount = {"kind": "amount", "against": None, "limit": None}
    assert found == {
        "format": 1,
        "scale": "tiny",
        "repeat": 2,
        "machine": {"cpu": "some", "cores": 2, "python": "3.11.7"},
        "packages": {"procrastinate": "4.0.0"},
        "server": {"server_version": "18.1", "fsync": "on"},
        "peers": [],
        "workloads": [
            {
                "key": "W0",
                "title": "an example",
                "short": "example",
                "limit": "the limit",
                "timed": "nothing",
                "error": None,
                "measures": [
                    {
                        "name": "speed",
                        "unit": "jobs/s",
                        "kind": "ratio",
                        "against": "plain",
                        "target": {"bound": 0.5, "at_least": True},
                        "met": True,
                        "median": 0.5,
                        "low": 0.4,
                        "high": 0.6,
                        "ours": 5.0,
                        "limit": 10.0,
                        "samples": [{"ours": 4.0, "limit": 10.0}, {"ours": 6.0, "limit": 10.0}],
                    },
                    amount
                    | {
                        "name": "memory",
                        "unit": "MiB",
                        "target": {"bound": 80, "at_least": False},
                        "met": True,
                        "median": 80.0,
                        "low": 70.0,
                        "high": 90.0,
                        "ours": 80.0,
                        "samples": [{"ours": 70.0, "limit": None}, {"ours": 90.0, "limit": None}],
                    },
                    amount
                    | {
                        "name": "beside",
                        "unit": "ms",
                        "target": None,
                        "met": None,
                        "median": 3.0,
                        "low": 3.0,
                        "high": 3.0,
                        "ours": 3.0,
                        "samples": [{"ours": 3.0, "limit": None}],
                    },
                ],
            }
        ],
    }


@pytest.mark.slow  # matplotlib is there on one Python only
def test_a_chart_is_drawn_as_png_and_svg(found: dict[str, Any], tmp_path: Path) -> None:
    from benchmarks.chart import draw

    paths = draw(found, tmp_path / "new" / "chart")
    assert paths == [tmp_path / "new" / "chart.png", tmp_path / "new" / "chart.svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert "example: speed" in paths[1].read_text()


# --- running --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)  # W7 starts eight workers
@pytest.mark.parametrize("key", WORKLOADS)
def test_a_workload_takes_all_its_measures(run: Any, key: str) -> None:
    code, found = run("--only", key, "--no-chart")
    (workload,) = found["workloads"]
    assert (code, workload["error"]) == (0, None)
    measured = {measure["name"]: measure["median"] for measure in workload["measures"]}
    assert [*measured] == [measure.name for measure in WORKLOADS[key].measures]
    assert all(math.isfinite(value) for value in measured.values())


def test_a_workload_that_fails_does_not_keep_the_others_from_running(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Example):
        def run(self, bench: Bench) -> Round:
            raise ValueError("out of order")

    class Running(Example):
        def run(self, bench: Bench) -> Round:
            return {"memory": Sample(1.0)}

    monkeypatch.setitem(WORKLOADS, "W1", Failing())
    monkeypatch.setitem(WORKLOADS, "W2", Running())
    code, found = run("--only", "W1,W2", "--no-chart")
    told = [(each["error"], len(each["measures"])) for each in found["workloads"]]
    assert (code, told) == (1, [("ValueError: out of order", 0), (None, 1)])


@pytest.mark.slow
def test_peers_that_cannot_be_installed_are_named_and_the_others_are_measured(
    run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    code, found = run("--peers", "--only", "procrastinate,graphile-worker", "--no-chart")
    ours, theirs = found["peers"]
    assert code == 0
    work = ["1 x 5ms", "10 x 1ms", "10 x 50ms", "20 x 5ms", "100 x 10ms", "100 x 100ms"]
    assert (ours["errors"], [*ours["figures"]]) == (
        {},
        ["drain", "enqueue", "latency_p50", "latency_p99", *work],
    )
    assert theirs["errors"] == {"install": "node and npm were not found"}
    assert "graphile-worker, install: node and npm were not found" in capsys.readouterr().out


@pytest.mark.slow
def test_another_version_is_measured_in_turn_with_this_one(run: Any) -> None:
    code, found = run("--against", sys.executable, "--only", "W2", "--no-chart")
    (workload,) = found["workloads"]
    (drain,) = workload["measures"]
    assert (code, workload["error"], workload["limit"]) == (0, None, "the other version")
    assert (drain["against"], drain["target"]) == (
        "the other version",
        {"bound": 0.97, "at_least": True},
    )
    assert drain["ours"] > 0 < drain["limit"]


def test_a_folder_without_wheels_is_refused(
    procrastinate_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--dsn", procrastinate_server.dsn, "--json", str(tmp_path / "found.json")]
    assert main([*arguments, "--against", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert (err.count("\n"), "neither a Python nor a folder with wheels" in err) == (1, True)


@pytest.mark.parametrize(
    ("measure", "target"),
    [
        (Measure("drain", "jobs/s", at_least(0.8)), at_least(0.97)),
        (Measure("two statements", "jobs/s", None, Kind.AMOUNT), at_least(0.97)),
        (Measure("p99", "ms", at_most(50), Kind.AMOUNT), at_most(1 / 0.97)),
        (Measure("memory", "MiB", None, Kind.AMOUNT), at_most(1 / 0.97)),
    ],
    ids=["a rate with a target", "a rate without", "a time", "a size"],
)
def test_what_is_compared_must_not_get_worse(measure: Measure, target: Any) -> None:
    class One(Example):
        measures = (measure,)

    (compared,) = Compared(One(), [], "").measures
    assert (compared.target, compared.kind) == (target, Kind.RATIO)


def test_every_script_of_a_peer_is_there() -> None:
    scripts = {path.name for path in environments.SCRIPTS.iterdir() if path.is_file()}
    assert scripts == {peer.script for peer in PEERS.values()}


def test_the_sizes_of_a_tiny_run_are_tiny() -> None:
    assert (TINY.of(50_000), TINY.of(50_000, at_least=1_000), FULL.of(50_000)) == (
        200,
        1_000,
        50_000,
    )
