"""Run pytest, and run a few tests that failed once more, alone: ``python second_look.py pytest …``.

Rules

1. The tests run beside each other on machines that are busy with much else. Some of them start
   servers, stop processes and wait. One that fails in the crowd and passes alone was in the way of
   others, or they of it: that is a fault of the test, and not of what it tests.
2. At most `FEW` tests are given this second look. More of them have failed for a reason.
3. A test that fails alone as well has failed. What passed is named at the end of the output, as
   `IN_A_CROWD` says, so that it is seen and mended.
4. Anything else that pytest complains of (an error of its own, a hook that fails the run) stays.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FEW = 3
SOME_FAILED = 1  # pytest's exit code
IN_A_CROWD = "FAILED IN A CROWD, PASSED ALONE:"
#: Variables that make demands on a whole run.
OF_A_WHOLE_RUN = ("PROCRASTINATE_TEST_PARTITIONS_AT_LEAST",)


def main(command: list[str]) -> int:
    """Run a command that ends in pytest's arguments; return its exit code after a second look."""
    with tempfile.TemporaryDirectory() as folder:
        cached = [*command, "-o", f"cache_dir={folder}"]
        code = subprocess.run(cached).returncode
        failed = failures(Path(folder))
        if code != SOME_FAILED or not 0 < len(failed) <= FEW:
            return code
        print(f"\nA second look, alone, at: {', '.join(failed)}", flush=True)
        code = subprocess.run([*cached, *ALONE], env=for_some_tests()).returncode
    if code == 0:
        for test in failed:
            print(IN_A_CROWD, test)
    return code


#: Those that failed in the run before, one after the other; without any, that is an error.
ALONE = ("--last-failed", "--last-failed-no-failures", "none", "-n", "0")


def failures(cache: Path) -> list[str]:
    """Return the names of the tests that failed in the last run."""
    noted = cache / "v" / "cache" / "lastfailed"
    return sorted(json.loads(noted.read_text(encoding="utf-8"))) if noted.exists() else []


def for_some_tests() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OF_A_WHOLE_RUN}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
