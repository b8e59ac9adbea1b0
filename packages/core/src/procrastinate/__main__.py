"""``python -m procrastinate``: the command line."""

from __future__ import annotations

from procrastinate_entry import main

if __name__ == "__main__":
    main()
