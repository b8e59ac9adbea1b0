"""Run the examples of a Markdown page, as written: ``python snippets.py PAGE``.

Rules

1. The blocks of a page run from top to bottom, in the current folder, and the first failure ends
   the run with exit code 1. Blocks marked ``python``, ``console``, ``bash`` and ``sh`` run; other
   languages are for reading only.
2. The ``python`` blocks of a page share one namespace, called ``__main__``, as if they stood in
   one script.
3. A ``console`` block runs its lines that begin with ``$ `` (and those that these continue with a
   backslash) in one bash, which must exit with 0. What stands between is output, for the reader.
   A ``bash`` or ``sh`` block is a script from its first line to its last.
4. An HTML comment directly above a block changes what is done with it:

   - ``<!-- snippet: name=app.py -->`` writes it to that file (of any language) and does not run it.
   - ``<!-- snippet: until=TEXT -->`` interrupts (SIGINT) a console or bash block once TEXT was
     seen in its output; it must exit with 0 all the same. For workers, which never end.
   - ``<!-- snippet: skip REASON -->`` leaves it out. Allowed only for commands that install, since
     an example that no test runs is wrong sooner or later.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import textwrap
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Seconds that the output of an ``until`` block may take to appear, and the block then to end.
PATIENCE = 60.0

SHELLS = {"bash", "sh"}
RUNNABLE = {"python", "console"} | SHELLS

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})\s*(?P<language>\w*)")
_DIRECTIVE = re.compile(r"^\s*<!--\s*snippet:\s*(?P<what>.*?)\s*-->\s*$")
_INSTALLING = re.compile(
    r"^(\S*/)?(pip|uv|uvx|pipx|nox|venv|cd|git clone|source|python3? -m (venv|pip|nox))\b"
)


class SnippetError(Exception):
    """A page's example is wrong, or does not do what it should."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; ``line`` is the line number of its first line of text, from 1."""

    language: str
    text: str
    line: int
    name: str | None = None
    until: str | None = None
    skip: str | None = None

    @property
    def runs(self) -> bool:
        return self.name is not None or self.language in RUNNABLE


# --- Reading --------------------------------------------------------------------------------------


def parse(markdown: str) -> list[Block]:
    """Return the fenced blocks of a page. Raises `SnippetError` for directives that cannot be."""
    blocks = []
    directive: tuple[int, str] | None = None
    lines = enumerate(markdown.splitlines(), start=1)
    for number, line in lines:
        found = _DIRECTIVE.match(line)
        fence = _FENCE.match(line)
        if fence:
            text = "".join(_until_closed(lines, fence, number))
            language = fence["language"].lower()
            blocks.append(_block(language, textwrap.dedent(text), number + 1, directive))
            directive = None
        elif directive and line.strip():
            raise SnippetError(f"line {directive[0]}: no block follows {directive[1]!r}")
        elif found:
            directive = (number, found["what"])
    if directive:
        raise SnippetError(f"line {directive[0]}: no block follows {directive[1]!r}")
    return blocks


def _until_closed(
    lines: Iterator[tuple[int, str]], fence: re.Match[str], opened: int
) -> Iterator[str]:
    closing = re.compile(rf"^\s*{re.escape(fence['fence'][0])}{{{len(fence['fence'])},}}\s*$")
    for _, line in lines:
        if closing.match(line):
            return
        yield line + "\n"
    raise SnippetError(f"line {opened}: the block is never closed")


def _block(language: str, text: str, line: int, directive: tuple[int, str] | None) -> Block:
    if directive is None:
        return Block(language, text, line)
    number, what = directive
    if what.startswith("name="):
        return Block(language, text, line, name=what.removeprefix("name="))
    if what.startswith("until=") and language in {"console"} | SHELLS:
        return Block(language, text, line, until=what.removeprefix("until="))
    if what.startswith("skip "):
        block = Block(language, text, line, skip=what.removeprefix("skip "))
        _check_that_it_installs(block)
        return block
    raise SnippetError(f"line {number}: {what!r} is not known for a {language or 'plain'} block")


def _check_that_it_installs(block: Block) -> None:
    if block.language == "python":
        raise SnippetError(f"line {block.line}: a python block cannot be skipped")
    for line in script(block).splitlines():
        for command in re.split(r"&&|\|\||;", line):
            if command.strip() and not _INSTALLING.match(command.strip()):
                raise SnippetError(
                    f"line {block.line}: only commands that install can be skipped, "
                    f"not {command.strip()!r}"
                )


def script(block: Block) -> str:
    """Return what bash is to run for a console or bash block."""
    if block.language in SHELLS:
        return block.text
    commands: list[str] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            commands.append(line[2:])
        elif commands and commands[-1].endswith("\\"):
            commands[-1] += "\n" + line
    if not commands:
        raise SnippetError(f"line {block.line}: a console block needs a line that begins with '$ '")
    return "\n".join(commands) + "\n"


# --- Running --------------------------------------------------------------------------------------


def run_page(page: Path) -> None:
    """Run all blocks of a page in the current folder. Raises what the first failing one raises."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.path.insert(0, os.getcwd())
    for block in parse(page.read_text("utf-8")):
        if block.skip is None:
            _run(block, page, main)


def _run(block: Block, page: Path, main: types.ModuleType) -> None:
    if block.name is not None:
        path = Path(block.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, "utf-8")
    elif block.language == "python":
        exec(_compiled(block, page), main.__dict__)
    elif block.until is not None:
        _run_until(block, block.until)
    elif block.language in RUNNABLE:
        _check(block, subprocess.run(_bash(block), check=False).returncode)


def _compiled(block: Block, page: Path) -> types.CodeType:
    """Return the block's code with the page's line numbers, for tracebacks that point there."""
    return compile("\n" * (block.line - 1) + block.text, str(page), "exec", dont_inherit=True)


def _bash(block: Block) -> list[str]:
    return ["bash", "-euo", "pipefail", "-c", script(block)]


def _check(block: Block, status: int) -> None:
    if status != 0:
        raise SnippetError(f"line {block.line}: exit code {status} from\n{script(block)}")


def _run_until(block: Block, text: str) -> None:
    process = subprocess.Popen(
        _bash(block), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        seen = _read_until(process, text)
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=PATIENCE)
    except ProcessLookupError:
        rest = b""
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    sys.stdout.write((seen + rest).decode(errors="replace"))
    if text.encode() not in seen:
        raise SnippetError(f"line {block.line}: ended without {text!r} in its output")
    _check(block, process.wait())


def _read_until(process: subprocess.Popen[bytes], text: str) -> bytes:
    """Return the output up to and with ``text``, or all of it if the process ends before."""
    assert process.stdout is not None
    deadline = time.monotonic() + PATIENCE
    seen = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while text.encode() not in seen:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise SnippetError(f"{text!r} was not seen within {PATIENCE:g} s:\n{seen.decode()}")
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            seen += chunk
    return seen


if __name__ == "__main__":
    try:
        run_page(Path(sys.argv[1]))
    except SnippetError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
