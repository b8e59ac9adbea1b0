"""The small HTTP server: what it answers, and clients that mean no good."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest

from procrastinate.errors import ConfigurationError
from procrastinate.worker.process import http_port
from procrastinate.worker.process.http_port import HEAD_BYTES, Answer, HttpPort, text


def ok(accept: str) -> Answer:
    return text(HTTPStatus.OK, f"fine, {accept}" if accept else "fine")


async def late(accept: str) -> Answer:
    return text(HTTPStatus.OK, "later")


def broken(accept: str) -> Answer:
    raise ValueError("broken\x1b[31m")


ROUTES: Any = {"/ok": ok, "/late": late, "/broken": broken}


@contextlib.contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[HttpPort]:
    port = HttpPort(host, 0, ROUTES)
    port.start()
    try:
        yield port
    finally:
        port.close()


@pytest.fixture
def port() -> Iterator[HttpPort]:
    with listening() as port:
        yield port


def connected(port: HttpPort) -> socket.socket:
    return socket.create_connection((port.host, port.port), timeout=20)


def all_of(client: socket.socket) -> bytes:
    """Read until the server has said all, or has cut the client off."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while more := client.recv(65_536):
            said += more
    return said


def asked(port: HttpPort, head: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a request and return status, headers and body of the answer."""
    with connected(port) as client:
        client.sendall(head)
        said = all_of(client)
    head, _, body = said.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return int(first.split()[1]), dict(line.split(b": ", 1) for line in lines), body


def get(port: HttpPort, path: str) -> tuple[int, bytes]:
    status, _, body = asked(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return status, body


@pytest.mark.parametrize(
    "path, status, body",
    [
        ("/ok", 200, b"fine\n"),
        ("/ok?a=b", 200, b"fine\n"),
        ("/late", 200, b"later\n"),
        ("/other", 404, b"there are /ok, /late, /broken\n"),
        ("/", 404, b"there are /ok, /late, /broken\n"),
    ],
)
def test_a_path_is_answered(port: HttpPort, path: str, status: int, body: bytes) -> None:
    assert get(port, path) == (status, body)


def test_the_answer_says_how_long_it_is_and_that_it_is_the_last(port: HttpPort) -> None:
    status, headers, body = asked(port, b"GET /ok HTTP/1.1\r\nAccept:  text/x\r\n\r\n")
    assert (status, body) == (200, b"fine, text/x\n")
    assert headers[b"Content-Length"] == b"13"
    assert headers[b"Connection"] == b"close"
    assert headers[b"Cache-Control"] == b"no-store"


def test_a_head_request_gets_no_body(port: HttpPort) -> None:
    status, headers, body = asked(port, b"HEAD /ok HTTP/1.0\r\n\r\n")
    assert (status, headers[b"Content-Length"], body) == (200, b"5", b"")


@pytest.mark.parametrize(
    "head, status",
    [
        (b"POST /ok HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"DELETE /ok HTTP/1.1\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET /ok SPDY/3\r\n\r\n", 505),
        (b"GET /ok HTTP/1.1\r\nX: " + b"x" * 2 * HEAD_BYTES + b"\r\n\r\n", 431),
        (b"x" * 3 * HEAD_BYTES, 431),
    ],
)
def test_a_bad_request_is_refused(port: HttpPort, head: bytes, status: int) -> None:
    assert asked(port, head)[0] == status
    assert get(port, "/ok")[0] == 200


def test_what_cannot_be_answered_is_logged_once(
    port: HttpPort, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert get(port, "/broken") == (500, b"see the log\n")
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.getMessage() == "/broken cannot be answered: ValueError: broken\\x1b[31m"


def test_a_client_that_sends_nothing_is_cut_off(
    port: HttpPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_port, "PATIENCE", 0.2)
    with connected(port) as client:
        client.sendall(b"GET /ok HTT")
        assert all_of(client) == b""


def test_a_client_that_reads_nothing_is_cut_off(
    port: HttpPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_port, "PATIENCE", 0.2)
    ROUTES["/much"] = lambda accept: Answer(HTTPStatus.OK, b"x" * 50_000_000)
    try:
        with connected(port) as client:
            client.sendall(b"GET /much HTTP/1.1\r\n\r\n")
            deadline = time.monotonic() + 30
            while port._clients:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert len(all_of(client)) < 50_000_000
    finally:
        del ROUTES["/much"]


def test_many_silent_clients_do_not_keep_others_out(
    port: HttpPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_port, "MOST", 5)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(port)) for _ in range(20)]
        for client in clients:
            client.sendall(b"GET /ok")
        for _ in range(10):
            assert get(port, "/ok")[0] == 200
        assert all_of(clients[0]) == b""


def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    with (
        listening() as port,
        pytest.raises(ConfigurationError, match=rf"cannot listen on port {port.port} of 127.0.0.1"),
    ):
        HttpPort("127.0.0.1", port.port, ROUTES)


def test_a_host_that_is_not_here_is_an_error_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on port 0 of 192\.0\.2\.1"):
        HttpPort("192.0.2.1", 0, ROUTES)


def test_it_does_not_need_the_event_loop_of_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of Windows watches no sockets."""
    monkeypatch.setattr("asyncio.new_event_loop", lambda: pytest.fail("the app's loop is used"))
    with listening() as port:
        assert get(port, "/ok") == (200, b"fine\n")


def test_once_closed_the_port_is_free_again() -> None:
    with listening() as port:
        with connected(port) as client:
            client.sendall(b"GET /ok HTTP/1.1\r\n\r\n")
            assert all_of(client).startswith(b"HTTP/1.1 200 OK")
        number = port.port
    assert not port._thread.is_alive()
    again = HttpPort("127.0.0.1", number, ROUTES)
    again.close()


def test_closing_does_not_wait_for_clients() -> None:
    with listening() as port, connected(port) as client:
        client.sendall(b"GET /ok")
        port.close()
        assert not port._thread.is_alive()
        assert all_of(client) == b""


def test_a_port_that_never_began_can_be_closed() -> None:
    port = HttpPort("127.0.0.1", 0, ROUTES)
    port.close()
    assert port._socket.fileno() == -1


def test_it_listens_on_ipv6() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listening("::1") as port:
        assert port.url == f"http://[::1]:{port.port}"
        assert get(port, "/ok")[0] == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_lets_go_of_the_port(forked: Callable[[Callable[[], bool]], bool]) -> None:
    with listening() as port:
        assert forked(lambda: port._socket.fileno() == -1)
        assert get(port, "/ok")[0] == 200


@pytest.fixture
def forked() -> Callable[[Callable[[], bool]], bool]:
    """Return a function that says whether something is true in a forked child."""

    def run(check: Callable[[], bool]) -> bool:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if check() else 2
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    return run
