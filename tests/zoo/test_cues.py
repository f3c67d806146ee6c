"""Whether images are told by shape or by texture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import job, train
from torch.nn import functional as F

from dlsys.errors import SpecError
from dlsys.zoo.cues import ShapeBias

JOB = """
kind: train
name: test
workload: softmax-regression
data: {source: shapes-and-textures, rows: 300, size: 16}
batch_size: 64
optimizer: {name: adam, lr: 0.01}
stop: {epochs: 2}
expect: {test/shape_bias: ">= 0"}
"""


def test_decisions_are_counted_where_cues_differ() -> None:
    #        shape  texture  neither  both  shape
    said = [1, 2, 0, 1, 0]
    shape = torch.tensor([1, 0, 1, 1, 0])
    texture = torch.tensor([0, 2, 2, 1, 2])
    outputs = F.one_hot(torch.tensor(said), 3).float()
    bias = ShapeBias()
    rows = [{"label": shape[part], "texture": texture[part]} for part in (slice(0, 2), slice(2, 5))]
    parts = [bias.sums(outputs[:2], rows[0]), bias.sums(outputs[2:], rows[1])]
    sums = {name: parts[0][name] + parts[1][name] for name in parts[0]}
    assert all(map(bias.owns, sums))
    assert bias.results(sums) == {"shape_bias": pytest.approx(2 / 3)}
    assert bias.results(bias.sums(outputs[3:4], {"label": shape[3:4], "texture": texture[3:4]})) == {}


def test_a_classifier_of_such_rows_is_measured(tmp_path: Path) -> None:
    found = train(job(JOB), tmp_path).result.metrics
    assert 0 <= found["test/shape_bias"] <= 1
    assert "valid/shape_bias" not in found
    with pytest.raises(SpecError, match="has no metric 'test/shape_bias'"):
        job(JOB, "data={source: digits}")
