"""The clock of one worker, which can be wrong; see ``clock.c``."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from chaos import debian

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """A time of day that is wrong by as many seconds as it was last told."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._library = folder / "clock.so"
        self._file.write_bytes(struct.pack("d", 0.0))
        command = [debian.program("gcc"), "-shared", "-fPIC", "-O1", "-o", str(self._library)]
        subprocess.run([*command, str(SOURCE), "-ldl"], check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process use it."""
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._file)}

    def shift(self, seconds: float) -> None:
        """Be wrong by this from now on."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("d", seconds))
