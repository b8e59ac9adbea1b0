"""Numbers, times and texts as people read them; plots; what addresses mean."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any

import pytest

from procrastinate.errors import InvalidOption
from procrastinate.model.monitoring.failures import FailureGroup
from procrastinate.model.monitoring.search import Count
from procrastinate_dashboard import showing
from procrastinate_dashboard.asking import address, time_from
from procrastinate_dashboard.charts import Plot, Series, bars, lines, nice_top
from procrastinate_dashboard.pages.failures import links_to
from procrastinate_dashboard.redaction import HIDDEN, Redaction
from procrastinate_dashboard.shared import NoAnswer, Shared

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0.0124, "12 ms"),
        (3.24, "3.2 s"),
        (59.9, "59 s"),
        (250, "4 min 10 s"),
        (1500, "25 min"),
        (3 * 3600 + 300, "3 h 5 min"),
        (2 * 86_400, "2 d"),
        (9 * 86_400 + 7200, "9 d 2 h"),
        (5000 * 86_400, "5,000 d"),
        (-3, "-3.0 s"),
    ],
)
def test_lengths_of_time(seconds: float, text: str):
    assert showing.lasting(seconds) == text
    assert showing.lasting(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "now"), (5, "5 s ago"), (3700, "1 h ago"), (-90, "in 1 min"), (-86_400 * 3, "in 3 d")],
)
def test_ages(seconds: float, text: str):
    assert showing.ago(NOW - timedelta(seconds=seconds), NOW) == text


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({}, ""),
        ({"a": 1, "to": "x"}, 'a=1, to="x"'),
        ({"a": "\x1b[31m\n"}, 'a="\\u001b[31m\\n"'),
        ({"a": "x" * 100_000}, 'a="' + "x" * 59 + "…"),
        ([1, 2], "[\\n  1,\\n  2\\n]"),
    ],
)
def test_arguments_in_one_line(arguments: Any, text: str):
    assert showing.compact(arguments) == text


def test_arguments_in_one_line_are_cut():
    assert len(showing.compact({f"name{n}": n for n in range(1000)}, 100)) <= 102


def test_what_is_no_json_is_shown_all_the_same():
    circle: dict[str, Any] = {}
    circle["self"] = circle
    assert showing.pretty({"a": {1, 2}}) == '{\n  "a": "{1, 2}"\n}'
    assert "self" in showing.pretty(circle)


@pytest.mark.parametrize(
    "text, time",
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2 H", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-11-28 10:00", NOW - timedelta(hours=2)),
        ("2026-11-28T11:00+01:00", NOW - timedelta(hours=2)),
    ],
)
def test_times_and_ages(text: str, time: datetime):
    assert time_from("since", text, NOW) == time


@pytest.mark.parametrize(
    "text", ["2", "2y", "0h", "99999999999999999999d", "9999999w", "now", "٣h"]
)
def test_times_that_cannot_be(text: str):
    with pytest.raises(InvalidOption, match="since is"):
        time_from("since", text, NOW)


def test_addresses_leave_out_what_is_not_given():
    assert address("jobs", state="failed", queue=None, task="a b&c") == (
        "jobs?state=failed&task=a+b%26c"
    )
    assert address("jobs", queue=None) == "jobs"


# --- plots ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "largest, top",
    [(0, 4), (1, 2), (3, 4), (4, 4), (5, 8), (17, 20), (780, 800), (0.3, 0.4), (float("inf"), 4)],
)
def test_scales_are_round(largest: float, top: float):
    assert nice_top(largest) == pytest.approx(top if largest != 1 else 2)


@pytest.mark.parametrize(
    "largest, top",
    [(0.3, 0.4), (200, 200), (239, 400), (400, 480), (9000, 12_000), (90_000, 144_000)],
)
def test_scales_of_time_are_of_round_minutes_and_hours(largest: float, top: float):
    assert nice_top(largest, "s") == pytest.approx(top)


def test_long_times_on_an_axis_are_in_minutes():
    plot = Plot("Waiting time", ["10:00"], [Series("p95", "p95", [400.0])], "s")
    assert plot.said(400.0) == "6 min 40 s"
    assert re.findall(">([^<>]+)</text>", str(lines(plot)))[:5] == [
        *("0", "2 min", "4 min", "6 min", "8 min")
    ]


def test_bars_stand_on_each_other_and_say_what_they_are():
    plot = Plot(
        "Jobs <ended>",
        ["10:00", "10:01"],
        [Series("succeeded", "succeeded", [3, 0]), Series("failed", "failed", [1, 0])],
    )
    drawn = str(bars(plot))
    assert drawn.count("<rect") == 2
    assert "<title>10:00 · succeeded: 3</title>" in drawn
    assert "Jobs &lt;ended&gt;" in drawn
    assert "style=" not in drawn


def test_lines_have_gaps_where_nothing_is_known():
    plot = Plot("Run time", list("abcde"), [Series("p50", "p50", [0.1, None, 0.2, 2.5, None])], "s")
    drawn = str(lines(plot))
    assert drawn.count("<polyline") == 2
    assert "<title>a · p50: 100 ms</title>" in drawn
    assert "<title>d · p50: 2.5 s</title>" in drawn


def test_an_axis_tells_small_times_apart():
    drawn = str(lines(Plot("Run time", ["a"], [Series("p50", "p50", [0.0016])], "s")))
    ticks = re.findall(r'text-anchor="end">([^<]*)<', drawn)
    assert ticks == ["0", "0.5 ms", "1 ms", "1.5 ms", "2 ms"]


@pytest.mark.parametrize("draw", [bars, lines])
def test_nothing_can_be_drawn(draw: Any):
    assert str(draw(Plot("Nothing", [], []))).startswith("<svg")


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["password", "dbPassword", "API-Key", "apiKey", "x_api_key", "Authorization", "TOKEN"]
)
def test_values_of_secret_names_are_hidden(name: str):
    redaction = Redaction()
    assert redaction.values("t", {"a": [{name: "s3cret"}]}) == {"a": [{name: HIDDEN}]}
    assert redaction.values("t", {name: {"deep": "s3cret"}}) == {name: HIDDEN}
    assert "s3cret" not in redaction.json(f'{{"{name}": "s3cret\\"", "b": 1, x}}')
    assert redaction.values("t", {name: None}) == {name: None}


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ada:s3cret@host/db",
        "host=h password=s3cret user=ada",
        "password = 's3c\\'ret s3cret' x",
        "PASSWORD=s3cret",
    ],
)
def test_passwords_in_texts_are_hidden(text: str):
    assert "s3c" not in Redaction().text(f"could not connect to {text}: refused")


def test_arguments_that_cannot_be_read_hide_each_secret():
    text = '{"a": "b", "token": "s3cret", "c": ":", "d": {"password": "s3cret", "n": 1}'
    hidden = f'{{"a": "b", "token": "{HIDDEN}", "c": ":", "d": {{"password": "{HIDDEN}", "n": 1}}'
    assert Redaction().json(text) == hidden


def test_nothing_is_shown_if_the_function_fails(caplog: pytest.LogCaptureFixture):
    redaction = Redaction(lambda task, value: value["missing"])
    assert redaction.values("t", {"iban": "s3cret"}) == HIDDEN
    assert caplog.records[-1].exc_info is not None


def test_addresses_have_no_passwords():
    text = "postgresql://ada:hunter@host is away"
    group = FailureGroup("t", "OSError", text, Count(1), None, None, 1)
    links = links_to(group, Redaction())
    assert "hunter" not in links.jobs + links.retry
    assert address("", error="OSError: postgresql://ada:*@host is away")[1:] in links.jobs


def test_more_can_be_hidden():
    assert Redaction(["iban"]).values("t", {"IBAN": "DE02"}) == {"IBAN": HIDDEN}
    shown = Redaction(lambda task, value: {"task": task, "token": value["a"]}).values("t", {"a": 1})
    assert shown == {"task": "t", "token": HIDDEN}


def test_what_is_nested_without_end_is_cut():
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]
    assert "…" in str(Redaction().values("t", deep))


# --- answers that are shared ----------------------------------------------------------------------


def test_answers_are_shared_for_a_second_and_longer_if_they_took_long():
    time, asked = 0.0, 0
    shared = Shared(lambda: time)

    def read(takes: float) -> int:
        nonlocal time, asked
        time += takes
        asked += 1
        return asked

    assert [shared.get("a", lambda: read(0.0)) for _ in range(5)] == [1] * 5
    time += 1.0
    assert shared.get("a", lambda: read(0.5)) == 2
    time += 9.4
    assert shared.get("a", lambda: read(0.0)) == 2
    time += 0.2
    assert shared.get("a", lambda: read(0.0)) == 3


def test_errors_are_shared_too_and_forgotten():
    shared, asked = Shared(lambda: 0.0), 0

    def fail() -> int:
        nonlocal asked
        asked += 1
        raise ValueError(asked)

    for _ in range(3):
        with pytest.raises(ValueError, match="1"):
            shared.get("a", fail)
    shared.forget()
    with pytest.raises(ValueError, match="2"):
        shared.get("a", fail)


def test_an_error_that_took_long_is_shared_for_seconds_only():
    time = 0.0
    shared = Shared(lambda: time)

    def wait_for_the_database() -> str:
        nonlocal time
        time += 30.0
        raise TimeoutError

    with pytest.raises(TimeoutError):
        shared.get("a", wait_for_the_database)
    time += 4.9
    with pytest.raises(TimeoutError):
        shared.get("a", lambda: "here again")
    time += 0.2
    assert shared.get("a", lambda: "here again") == "here again"


def test_an_answer_that_took_long_because_of_the_network_does_not_last():
    time = 0.0
    shared = Shared(lambda: time)

    def hang() -> int:
        nonlocal time
        time += 60
        return 1

    assert shared.get("a", hang) == 1
    time += 19.9
    assert shared.get("a", lambda: 2) == 1
    time += 0.2
    assert shared.get("a", lambda: 2) == 2


def test_a_question_that_hangs_is_given_up():
    shared, hangs, goes_on = Shared(), Event(), Event()

    def hang() -> int:
        hangs.set()
        goes_on.wait()
        return 1

    thread = Thread(target=shared.get, args=("a", hang), daemon=True)
    thread.start()
    hangs.wait()
    try:
        with pytest.raises(NoAnswer):
            shared.get("a", lambda: 2, patience=0.01)
        assert shared.get("a", lambda: 3) == 3
    finally:
        goes_on.set()
        thread.join()


def test_questions_do_not_pile_up():
    shared = Shared(lambda: 0.0)
    for number in range(1000):
        shared.get(number, lambda: 1)
    assert len(shared._entries) <= 200


def test_answers_that_are_over_are_forgotten():
    time = 0.0
    shared = Shared(lambda: time)
    for number in range(5):
        time += 2.0
        shared.get(number, lambda: "large")
    assert list(shared._entries) == [4]
