"""Into which partition a job goes, and which one its id names."""

from __future__ import annotations

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from procrastinate.model.partitions import MANY, ONE, VALUES, Partitions

DISTRIBUTED = Partitions(MANY, boundary_id=1_000)


def test_there_are_64_different_ones_and_the_one_of_old_rows_is_among_them() -> None:
    assert len(set(VALUES)) == len(VALUES) == MANY
    assert VALUES[27] == 0  # as the default of the column `id` says on a distributed database


@given(st.text(), st.integers(min_value=1))
def test_with_one_partition_it_is_always_0(key: str, job_id: int) -> None:
    assert (ONE.of_key(key), ONE.of_id(job_id), list(ONE.values)) == (0, 0, [0])


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_key_always_has_the_same_partition(key: str) -> None:
    place = hashlib.sha256(key.encode("utf-8")).digest()[0] % 64
    assert DISTRIBUTED.of_key(key) == VALUES[place]


@given(st.integers(min_value=1_001, max_value=2**63 - 1))
def test_an_id_above_the_boundary_names_its_partition(job_id: int) -> None:
    assert DISTRIBUTED.of_id(job_id) == VALUES[job_id % 64]


@given(st.integers(min_value=1, max_value=1_000))
def test_an_id_from_before_the_distribution_does_not(job_id: int) -> None:
    assert DISTRIBUTED.of_id(job_id) is None


def test_keys_spread_over_all_partitions() -> None:
    spread = Counter(DISTRIBUTED.of_key(f"customer {n}") for n in range(6_400))
    assert set(spread) == set(VALUES)
    assert max(spread.values()) < 200
