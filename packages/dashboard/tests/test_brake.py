"""Guessed passwords: who guesses has to wait, and nobody else."""

from __future__ import annotations

import base64
import logging
from dataclasses import dataclass

import pytest

from procrastinate_dashboard import Access, Request, Response
from procrastinate_dashboard.brake import (
    MOST_GUESSES,
    MOST_IN_ALL,
    MOST_KNOWN,
    WINDOW,
    Brake,
    network_of,
)
from procrastinate_dashboard.login import by_password


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def brake(clock: Clock) -> Brake:
    return Brake(clock)


class Door:
    """Asks for a page with a password, from an address."""

    def __init__(self, brake: Brake) -> None:
        self._access = by_password("ops", "right", "act", brake)

    def ask(self, password: str, address: str = "192.0.2.1", user: str = "ops") -> int:
        said = self.answer(password, address, user)
        return said.status if isinstance(said, Response) else 200

    def answer(
        self, password: str, address: str = "192.0.2.1", user: str = "ops"
    ) -> Access | Response:
        sent = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers = {"authorization": f"Basic {sent}"}
        return self._access(Request("GET", "/", headers=headers, remote=address))


@pytest.fixture
def door(brake: Brake) -> Door:
    return Door(brake)


def test_who_guesses_has_to_wait_until_the_minute_is_over(door: Door, clock: Clock):
    assert [door.ask(f"guess {number}") for number in range(7)] == [401] * 5 + [429] * 2
    clock.now += WINDOW - 20.5
    refused = door.answer("right")
    assert isinstance(refused, Response)
    assert (refused.status, refused.headers) == (429, {"retry-after": "21"})
    assert refused.body == b"Too many wrong passwords. Try again in 21 s.\n"
    clock.now += 20.5
    assert door.ask("right") == 200


def test_a_right_password_of_another_address_works(door: Door):
    for number in range(20):
        door.ask(f"guess {number}")
    assert door.ask("right", "192.0.2.2") == 200


def test_a_password_that_was_right_before_the_change_is_one_guess(door: Door):
    assert [door.ask("old") for _ in range(50)] == [401] * 50
    assert door.ask("right") == 200


def test_a_network_of_ipv6_is_one_address(door: Door):
    asked = [door.ask(f"guess {number}", f"2001:db8::{number:x}") for number in range(6)]
    assert asked == [401] * 5 + [429]
    assert door.ask("right", "2001:db8:0:1::1") == 200


def test_many_addresses_are_no_way_around(door: Door, clock: Clock):
    assert door.ask("right", "192.0.2.9") == 200
    asked = [door.ask("guess", f"10.0.{number}.1") for number in range(MOST_IN_ALL + 1)]
    assert asked == [401] * MOST_IN_ALL + [429]
    assert door.ask("right", "192.0.2.10") == 429
    assert door.ask("right", "192.0.2.9") == 200
    clock.now += WINDOW
    assert door.ask("right", "192.0.2.10") == 200


def test_what_is_kept_is_bounded(brake: Brake, clock: Clock):
    for number in range(5_000):
        address = f"10.{number // 250}.{number % 250}.1"
        brake.right(address)
        if not brake.wait(f"{address}9"):
            brake.wrong(f"{address}9", b"guess")
        clock.now += 0.1
    assert len(brake._known) == MOST_KNOWN
    assert len(brake._guesses) <= 2 * MOST_IN_ALL


def test_a_burst_is_logged_once(door: Door, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    for number in range(50):
        door.ask(f"guess {number}", user="ops\nforged\x1b[31m")
    assert [record.getMessage() for record in caplog.records] == [
        "a login from 192.0.2.1 as 'ops\\nforged\\x1b[31m' was refused",
        (
            f"{MOST_GUESSES} wrong passwords from 192.0.2.1, the last one for"
            " 'ops\\nforged\\x1b[31m': it has to wait"
        ),
    ]


def test_who_sends_nothing_does_not_guess(brake: Brake):
    access = by_password("ops", "right", "act", brake)
    for _ in range(20):
        said = access(Request("GET", "/", remote="192.0.2.1"))
        assert isinstance(said, Response)
        assert said.status == 401
    assert Door(brake).ask("right") == 200


@pytest.mark.parametrize(
    "address, network",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("x" * 200, "x" * 100),
    ],
)
def test_what_counts_as_one_address(address: str, network: str):
    assert network_of(address) == network
