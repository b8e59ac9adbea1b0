"""What any connector for procrastinate must pass, as a pytest suite.

Describe the connector with an `Adapter`, add the abilities that it has, and let `suite_for`
assemble the tests::

    class MyAdapter(Adapter, Binds):
        ...

    TestMyConnector = suite_for(MyAdapter())
"""

from __future__ import annotations

import pytest

# Before the modules are imported: it is their assertions that a failure has to explain.
for _module in ("behaviours", "driving", "queue", "subject"):
    pytest.register_assert_rewrite(f"{__name__}.{_module}")

from procrastinate_connector_testkit.adapter import (  # noqa: E402
    Adapter,
    Binds,
    LimitsPool,
    OwnedConnection,
    OwnedPool,
    TakesPools,
)
from procrastinate_connector_testkit.suite import suite_for  # noqa: E402

__all__ = [
    "Adapter",
    "Binds",
    "LimitsPool",
    "OwnedConnection",
    "OwnedPool",
    "TakesPools",
    "__version__",
    "suite_for",
]

__version__ = "4.0.0"
