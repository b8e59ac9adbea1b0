"""How the workers' processes ended: rule 14."""

from __future__ import annotations

from collections.abc import Iterator

from chaos.books.shelf import Books
from chaos.records import Complaint


def ends(books: Books) -> Iterator[Complaint]:
    """Rule 14: processes that have run jobs, and that ended although no fault made them.

    One that has run none may have failed to start: the fleet judges that.
    """
    ran = {run.process for runs in books.runs.values() for run in runs}
    for process, at in books.deaths.items():
        if process in ran and not books.windows.ended(process, at):
            yield Complaint("ended by itself", f"{process} at {at:%H:%M:%S.%f}")
