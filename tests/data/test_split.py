from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlsys.data.split import split_rows
from dlsys.errors import DataError


@given(
    rows=st.integers(5, 200),
    valid=st.floats(0, 0.4),
    test=st.floats(0, 0.4),
    classes=st.integers(0, 5),
    seed=st.integers(0, 9),
)
def test_parts_are_disjoint_and_cover_all_rows(
    rows: int, valid: float, test: float, classes: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(classes, size=rows) if classes else None
    parts = split_rows(rows, valid=valid, test=test, seed=seed, name="x", labels=labels)
    assert sorted(np.concatenate(parts)) == list(range(rows))
    assert len(parts.train)
    assert len(parts.valid) == max(1, round(valid * rows))
    assert (len(parts.test) > 0) == (test > 0)


@given(counts=st.lists(st.integers(1, 60), min_size=2, max_size=6), seed=st.integers(0, 9))
def test_each_class_gets_its_share(counts: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)) * 7, counts))
    if len(labels) < 5:
        return
    parts = split_rows(len(labels), valid=0.2, test=0.2, seed=seed, name="x", labels=labels)
    for part in parts:
        for number, count in enumerate(counts):
            got = int((labels[part] == number * 7).sum())
            assert abs(got - count * len(part) / len(labels)) < 2


def test_rows_of_a_class_are_drawn_at_random() -> None:
    labels = np.repeat([0, 1], 500)
    parts = [split_rows(1000, valid=0.1, test=0.1, seed=s, name="x", labels=labels) for s in (0, 1)]
    assert 0 < len(set(parts[0].valid) & set(parts[1].valid)) < 30
    assert 200 < np.mean(parts[0].valid[labels[parts[0].valid] == 0]) < 300


@pytest.mark.parametrize(("rows", "valid", "test"), [(0, 0.1, 0), (1, 0.1, 0), (2, 0.1, 0.1), (10, 0.5, 0.5)])
def test_too_few_rows(rows: int, valid: float, test: float) -> None:
    with pytest.raises(DataError) as error:
        split_rows(rows, valid=valid, test=test, seed=0, name="a.csv")
    taken = (max(1, round(valid * rows)), max(1, round(test * rows)) if test else 0)
    assert str(error.value) == (
        f"a.csv: {rows} rows are too few: {taken[0]} for validation and {taken[1]} for the test "
        "leave none to train on"
    )
