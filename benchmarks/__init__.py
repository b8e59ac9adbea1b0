"""How fast procrastinate is, beside what plain SQL does on the same server: ``nox -s bench``."""
