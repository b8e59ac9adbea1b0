"""The reference from docstrings: names between backticks, options, and signatures fit to be read.

Docstrings name things by single backticks (`App`, `JobDeferrer.defer`), as short as they can. They
are found wherever they are documented; a name that is documented nowhere is a warning.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
from typing import Any

from docutils.nodes import Element
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

from procrastinate.model.worker_options import WorkerOptions

logger = logging.getLogger(__name__)

#: Every name in the `__all__` of these must be in the reference.
PUBLIC = (
    "procrastinate",
    "procrastinate.testing",
    "procrastinate_psycopg2",
    "procrastinate_psycopg",
    "procrastinate_aiopg",
    "procrastinate_asyncpg",
    "procrastinate_sqlalchemy",
    "procrastinate_sqlalchemy_async",
    "procrastinate_django",
    "procrastinate_connector_testkit",
    "procrastinate_embedded",
    "procrastinate_opentelemetry",
    "procrastinate_dashboard",
    "procrastinate_prometheus",
)
#: Classes that users are given and never make themselves.
GIVEN = (
    "Task",
    "JobDeferrer",
    "Statement",
    "JobManager",
    "SchemaManager",
    "JobContext",
    "Counts",
    "SchemaState",
)


class NameRole(PyXRefRole):
    """The role of single backticks: a name, looked for from the inside of the class outwards."""

    def process_link(
        self,
        env: BuildEnvironment,
        refnode: Element,
        has_explicit_title: bool,
        title: str,
        target: str,
    ) -> tuple[str, str]:
        title, target = super().process_link(env, refnode, has_explicit_title, title, target)
        refnode.update_all_atts({"refdomain": "py", "reftype": "obj"}, replace=True)
        refnode["refspecific"] = True
        return title, target


def without_overloads() -> None:
    """Show one signature of each method: overloads are for type checkers, and say less."""
    analyze = ModuleAnalyzer.analyze

    def analyze_and_forget(self: ModuleAnalyzer) -> None:
        analyze(self)
        self.overloads = {}

    ModuleAnalyzer.analyze = analyze_and_forget  # type: ignore[method-assign]


def readable_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Leave out what readers do not need: internal arguments, sentinels, private types."""
    if what == "class" and signature == "(*args, **kwargs)":  # a protocol
        return "", None
    if what == "class" and (name.rpartition(".")[2] in GIVEN or issubclass(obj, enum.Enum)):
        return "", None
    if signature is not None:
        signature = re.sub(r"~(\w+)\b(?![.\w])", r"\1", signature).replace("_UNSET", "...")
        # The default of a dataclass's field that is made anew for each.
        signature = re.sub(r"~(?:\w+\.)+(?=\w+\b[^,]*=\s*<factory>)", "", signature)
        signature = signature.replace("<factory>", "...")
    if returns is not None and re.search(r"\b_[A-Z]\w*$", returns):
        returns = None
    return signature, returns


def options_from_fields(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Describe the worker's options by the help that they are defined with."""
    if obj is not WorkerOptions:
        return
    for each in dataclasses.fields(obj):
        text = each.metadata["help"]
        lines += [f"``{each.name}``", f"   {text[:1].upper()}{text[1:]}.", ""]


def missing_names(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that no page documents."""
    documented = {name.rpartition(".")[2] for name in env.domains.python_domain.objects}
    for module in PUBLIC:
        for name in importlib.import_module(module).__all__:
            value = getattr(importlib.import_module(module), name)
            if name not in documented and not inspect.ismodule(value) and name != "__version__":
                logger.warning("%s.%s is public and in no page of docs/reference", module, name)


def missing_docstrings(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public methods, of classes in the reference, that say nothing."""
    for name, entry in env.domains.python_domain.objects.items():
        if entry.objtype not in ("class", "exception") or entry.aliased:
            continue
        module, _, qualname = name.rpartition(".")
        kind = getattr(importlib.import_module(module), qualname)
        fields = getattr(kind, "__dataclass_fields__", {})
        for member, value in vars(kind).items():
            if member.startswith("_") or member in fields or not is_method(value):
                continue
            if not inspect.getdoc(getattr(kind, member)):
                logger.warning("%s.%s is public and has no docstring", name, member)


def is_method(value: Any) -> bool:
    return inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod)


def setup(app: Sphinx) -> dict[str, Any]:
    without_overloads()
    app.add_role("name", NameRole())
    app.connect("autodoc-process-signature", readable_signature)
    app.connect("autodoc-process-docstring", options_from_fields)
    app.connect("env-check-consistency", missing_names)
    app.connect("env-check-consistency", missing_docstrings)
    return {"parallel_read_safe": True}
