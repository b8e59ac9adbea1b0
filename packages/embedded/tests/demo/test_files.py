"""Finding, naming and reading files, also odd ones."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procrastinate_embedded.demo import files


@given(st.binary(min_size=1).map(lambda name: name.replace(b"\0", b"x")))
def test_a_path_survives_its_encoding_as_ascii_text(path: bytes) -> None:
    text = files.encoded(path)
    assert (files.decoded(text), text.isascii(), text.isprintable()) == (path, True, True)


def test_an_ordinary_path_is_its_own_encoding() -> None:
    assert files.encoded(b'/usr/lib/it\'s [a] "b" \\c.py') == '/usr/lib/it\'s [a] "b" \\c.py'


@pytest.mark.parametrize(
    "path, shown",
    [
        (b"/a b", "/a b"),
        ("grüß 日本".encode(), "grüß 日本"),
        (b"\xff", "\\xff"),
        (b"new\nline\x1b[31m", "new\\nline\\x1b[31m"),
    ],
)
def test_a_path_is_shown_on_one_line_without_control_characters(path: bytes, shown: str) -> None:
    assert files.shown(path) == shown


def test_all_regular_files_are_found_in_order_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("z", "b/c/x", "b/a"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "to_fifo").symlink_to("fifo")
    (tmp_path / "b" / "loop").symlink_to("..")
    (tmp_path / "to_z").symlink_to("z")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "itself").symlink_to("itself")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "socket"))
        found = [os.path.relpath(each, os.fsencode(tmp_path)) for each in _find(tmp_path)]
    assert found == [b"dangling", b"itself", b"to_z", b"z", b"b/a", b"b/c/x"]


def _find(folder: Path) -> list[bytes]:
    return list(files.find(os.fsencode(folder)))


def test_folders_can_be_left_out(tmp_path: Path) -> None:
    for name in ("lib/site-packages", "lib/email"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    found = list(files.find(os.fsencode(tmp_path), without=[b"site-packages"]))
    assert found == [os.fsencode(tmp_path / "lib/email/file")]


def test_a_folder_that_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    told: list[OSError] = []
    missing = tmp_path / "missing"
    assert list(files.find(os.fsencode(missing), on_error=told.append)) == []
    assert [each.filename for each in told] == [os.fsencode(missing)]


@pytest.mark.parametrize(
    "content, lines",
    [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"\n\n", 2), (b"\0\xff", 1)],
)
def test_a_file_is_measured(tmp_path: Path, content: bytes, lines: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    digest = hashlib.blake2b(content, digest_size=32).hexdigest()
    measured = files.measure(files.chunks(os.fsencode(path)))
    assert measured == files.Content(len(content), lines, digest)


def test_a_large_file_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = b"x" * (files.CHUNK - 1) + b"\n" + b"y\n"
    path.write_bytes(content)
    pieces = list(files.chunks(os.fsencode(path)))
    assert [len(each) for each in pieces] == [files.CHUNK, 2]
    assert files.measure(pieces).lines == 2


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="not a regular file"):
        list(files.chunks(os.fsencode(fifo)))
    with pytest.raises(OSError, match="not a regular file"):
        list(files.chunks(os.fsencode(tmp_path)))
