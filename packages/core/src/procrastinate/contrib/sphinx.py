"""Says to those of Procrastinate 3 how tasks are documented without its extension of Sphinx."""

from __future__ import annotations

raise ImportError(
    "procrastinate.contrib.sphinx, which Procrastinate 3 had, is gone: write `.. autofunction::"
    " module.task` for each task, which Sphinx's autodoc shows as the function that it is",
    name=__name__,
)
