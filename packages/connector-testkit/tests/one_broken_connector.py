"""Run by `test_broken_connectors` in a process of its own: the suite, for one broken connector.

Not called test_*: it is collected only when it is named.
"""

from __future__ import annotations

import os

import broken_connectors

from procrastinate_connector_testkit import suite_for

TestBroken = suite_for(broken_connectors.adapter_of(os.environ["PROCRASTINATE_TESTKIT_FAULT"]))

# The queue's behaviours may fail or not when something below them is broken: they take their time,
# and say little about the fault.
for _name in dir(TestBroken):
    if ".queue_" in str(getattr(getattr(TestBroken, _name), "__module__", "")):
        setattr(TestBroken, _name, None)
