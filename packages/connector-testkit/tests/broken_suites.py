"""The suites for the broken connectors that an environment variable names, a class for each.

`test_broken_connectors` runs them in a process of their own. They are collected only when this
file is named.
"""

from __future__ import annotations

import os

import broken_adapters
import pytest
from faults import FAULTS

from procrastinate_connector_testkit import driving, suite_for
from procrastinate_connector_testkit.behaviours import limits, listening, threads, values

# What has to fail need not take its time.
patch = pytest.MonkeyPatch()
patch.setattr(listening, "PATIENCE", 1.5)
patch.setattr(driving, "PATIENCE", 3.0)
patch.setattr(driving, "DEADLINE", 10.0)
patch.setattr(limits, "SLEEP", 3)
patch.setattr(threads, "STANDS_STILL", 1.0)
patch.setattr(values, "EXAMPLES", 3)


def suite_of(name: str) -> type:
    """Return the suite without the behaviours that are not near the fault."""
    suite = suite_for(broken_adapters.adapter_of(name))
    for behaviours in suite.__mro__[1:]:
        is_run = behaviours.__module__.rpartition(".")[2] in FAULTS[name].modules
        if ".behaviours." in behaviours.__module__ and not is_run:
            for test in vars(behaviours):
                if test.startswith("test_"):
                    setattr(suite, test, None)
    return suite


for name in os.environ["PROCRASTINATE_TESTKIT_FAULTS"].split():
    globals()[f"Test{name}"] = suite_of(name)
