"""The suite for the broken connector that an environment variable names.

`test_broken_connectors` runs it in a process of its own. It is collected only when it is named.
"""

from __future__ import annotations

import os

import broken_adapters
import pytest
from faults import FAULTS

from procrastinate_connector_testkit import subject, suite_for
from procrastinate_connector_testkit.behaviours import listening, values

# What has to fail need not take its time.
patch = pytest.MonkeyPatch()
patch.setattr(listening, "PATIENCE", 0.7)
patch.setattr(subject, "PATIENCE", 2.0)
patch.setattr(subject, "DEADLINE", 10.0)
patch.setattr(values, "EXAMPLES", 3)

NAME = os.environ["PROCRASTINATE_TESTKIT_FAULT"]

TestBroken = suite_for(broken_adapters.adapter_of(NAME))

for behaviours in TestBroken.__mro__[1:]:
    if ".behaviours." in behaviours.__module__:
        is_run = behaviours.__module__.rpartition(".")[2] in FAULTS[NAME].modules
        for test in vars(behaviours):
            if test.startswith("test_") and not is_run:
                setattr(TestBroken, test, None)
