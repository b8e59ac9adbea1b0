"""The configuration of the documentation site: ``nox -s docs`` builds it into site/.

Rules

1. The site is the repository as it lies there: its source folder is the top folder, so that the
   pages, which are Markdown for people on a forge too, keep their relative links.
2. What is in the code is not written down again: the reference comes from the docstrings, the
   commands from click, and the worker's options from `WorkerOptions`.
3. Nothing is fetched, neither while it is built nor while it is read.
4. A warning is an error: a link that leads nowhere, a public name that is not documented, a name
   between backticks in a docstring that means nothing.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from sphinx.util import logging

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_extensions"))

# What is public in Django's package includes an app, which is made of the settings.
django_settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "docs"}}
)

project = "procrastinate"
author = "The procrastinate contributors"
project_copyright = author
release = version = metadata.version("procrastinate")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "docstrings", "commands"]
#: People arrive at the README.
root_doc = "README"
include_patterns = [
    "docs/**",
    "README.md",
    "CONTRIBUTING.md",
    "packages/*/README.md",
    "packages/*/CHANGELOG.md",
    "examples/*/README.md",
    "benchmarks/*.md",
]
exclude_patterns = [".*", "**/.*", "site", "dist"]
templates_path = ["_templates"]

# --- Markdown -------------------------------------------------------------------------------------

myst_heading_anchors = 4
smartquotes = False

# --- The reference --------------------------------------------------------------------------------

default_role = "name"
nitpicky = True
# In signatures, names of the standard library and of type variables are no links.
nitpick_ignore_regex = [("py:class", r".*"), ("py:obj", r"typing\..*")]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 120
add_module_names = False
toc_object_entries_show_parents = "hide"

# --- The pages ------------------------------------------------------------------------------------

html_theme = "furo"
html_title = f"procrastinate {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "to_home.html"}
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
#: What is copied from a console block is what one types: no prompt, and no output.
copybutton_exclude = ".linenos, .gp, .go"

#: The how-to pages by what people want to do, each group in the order of need. A page that is in no
#: group is an error (`groups_of_how_to_pages`).
HOW_TO = {
    "Defer jobs": [
        "defining-tasks",
        "transactions",
        "scheduling",
        "periodic",
        "batch-defer",
        "sync-defers",
        "fastapi",
        "django",
        "blueprints",
    ],
    "Run jobs": [
        "worker",
        "retries",
        "locks",
        "results",
        "cancel-and-abort",
        "middleware",
    ],
    "See and steer": [
        "when-stuck",
        "dashboard",
        "managing-jobs",
        "pausing",
        "monitoring",
        "logging",
        "opentelemetry",
        "sentry",
        "command-line",
        "retention",
    ],
    "Set up and move": [
        "schema",
        "from-procrastinate-3",
        "import",
        "coming-from",
        "distribute",
    ],
    "Test and extend": ["testing", "write-a-connector"],
}


def navigation() -> str:
    """Return the site's tree of pages, which Markdown on a forge has no word for."""
    groups = {
        "Begin": ["/docs/tutorial", "All pages </docs/index>"],
        **groups_of_how_to_pages(),
        "Look things up": docs("guarantees", "connectors", "errors", "reference/index"),
        "Understand": docs("architecture", "performance", "chaos"),
        "Examples": pages("examples/*/README.md"),
        "Packages": pages("packages/*/README.md"),
        "Change it": ["/CONTRIBUTING", "/benchmarks/README", "/benchmarks/LOG"],
    }
    return "".join(tree(f":caption: {caption}", *entries) for caption, entries in groups.items())


def tree(*lines: str) -> str:
    return "\n".join(["\n", "```{toctree}", ":hidden:", *lines, "```", ""])


def groups_of_how_to_pages() -> dict[str, list[str]]:
    found = {path.stem for path in (ROOT / "docs" / "howto").glob("*.md")}
    if found != {name for names in HOW_TO.values() for name in names}:
        raise ValueError("HOW_TO in docs/conf.py does not name the pages of docs/howto")
    return {group: docs(*(f"howto/{name}" for name in names)) for group, names in HOW_TO.items()}


def docs(*names: str) -> list[str]:
    return [f"/docs/{name}" for name in names]


def pages(pattern: str) -> list[str]:
    found = sorted(ROOT.glob(pattern), key=lambda path: (path.parent.name != "core", path))
    return [f"/{path.relative_to(ROOT).with_suffix('')}" for path in found]


def add_navigation(app: Any, docname: str, source: list[str]) -> None:
    """Give the landing page the navigation, and each package's page its changelog."""
    if docname == root_doc:
        source[0] += navigation()
    if docname.startswith("packages/") and docname.endswith("/README"):
        source[0] += tree("CHANGELOG")


def check_that_nothing_is_fetched(app: Any, exception: Exception | None) -> None:
    """Warn of pages that load something from elsewhere when they are read."""
    loads = re.compile(
        r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//"""
    )
    for page in Path(app.outdir).rglob("*.html"):
        if found := loads.search(page.read_text("utf-8")):
            logging.getLogger(__name__).warning("%s loads something: %s", page, found[0])


def setup(app: Any) -> None:
    app.connect("source-read", add_navigation)
    app.connect("build-finished", check_that_nothing_is_fetched)
