"""Reading what Prometheus would scrape."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

#: The value of each sample by its name and labels, as ``name{label=value}``.
Samples = Mapping[str, float]


def parsed(text: str) -> Samples:
    """Return the samples of a scrape, without what says when a metric was made."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return {name: value for name, value in found.items() if "_created{" not in name}


@pytest.fixture
def samples_of() -> Callable[[str | CollectorRegistry], Samples]:
    """Return a function that reads a scrape, or makes one of a registry and reads that."""

    def samples_of(source: str | CollectorRegistry) -> Samples:
        if not isinstance(source, str):
            source = generate_latest(source).decode()
        return parsed(source)

    return samples_of
