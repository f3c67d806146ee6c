"""Mixtures of experts: which expert computes what, what it costs, and what it is good for."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from harness import job, train
from torch import Tensor

from dlsys import paths
from dlsys.spec.rows import FEATURES_WITH_TARGETS
from dlsys.zoo.example import batch_of
from dlsys.zoo.layers.experts import MixtureOfExperts
from dlsys.zoo.load import load_workload
from dlsys.zoo.measure import count

JOB = (Path(paths.__file__).parent / "ready" / "jobs" / "foundation" / "mixture_of_experts.yaml").read_text()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def one_by_one(mixture: MixtureOfExperts, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
    """What a mixture gives, from its description: token by token, choice by choice."""
    up, up_bias, down, down_bias = mixture.experts.weights
    results = []
    for i, token in enumerate(tokens):
        chances = (mixture.gate.weight @ token).softmax(0)
        chosen = chances.argsort(descending=True)[: mixture.top]
        weights = chances[chosen] / chances[chosen].sum() if mixture.top > 1 else chances[chosen]
        result = torch.zeros(down.shape[1])
        for choice, (e, weight) in enumerate(zip(chosen, weights, strict=True)):
            if kept is None or kept[i, choice]:
                result = result + weight * (down[e] @ (up[e] @ token + up_bias[e]).relu() + down_bias[e])
        results.append(result)
    return torch.stack(results)


def prefer(mixture: MixtureOfExperts, *orders: str) -> Tensor:
    """Tokens whose gate ranks experts as told, by digits."""
    tokens = torch.zeros(len(orders), mixture.gate.in_features)
    mixture.gate.weight.data = torch.eye(mixture.experts.count, mixture.gate.in_features)
    for token, order in zip(tokens, orders, strict=True):
        for place, digit in enumerate(order):
            token[int(digit)] = 5.0 - place
    return tokens


@pytest.mark.parametrize("top", [1, 2, 3])
def test_a_token_is_the_weighted_sum_of_its_best_experts(top: int) -> None:
    mixture = MixtureOfExperts(5, top, inputs=6, hidden=7, outputs=4)
    tokens = torch.randn(3, 11, 6)
    mixed, routing = mixture(tokens)
    assert mixed.shape == (3, 11, 4)
    torch.testing.assert_close(mixed.flatten(0, 1), one_by_one(mixture, tokens.flatten(0, 1)))
    assert routing.load.sum() == 33 * top


def test_an_experts_room_goes_to_first_choices_then_to_earlier_tokens() -> None:
    """Room for ceil(1 · 2 / 4 · 4) = 2 in each group of 4."""
    mixture = MixtureOfExperts(4, 2, inputs=4, hidden=3, outputs=4, capacity=1.0, group=4)
    tokens = prefer(mixture, "01", "02", "03", "30", "10", "01", "23", "32", "01")
    kept = torch.tensor(
        [
            [True, True],
            [True, True],
            [False, True],  # expert 0 has two that came first
            [True, False],  # a second choice comes after all first ones
            [True, True],
            [True, True],
            [True, True],
            [True, True],
            [True, True],  # alone in its group: room for ceil(1 · 2 / 4 · 1) = 1
        ]
    )
    mixed, routing = mixture(tokens)
    torch.testing.assert_close(mixed, one_by_one(mixture, tokens, kept))
    assert routing.load.tolist() == [2 + 2 + 1, 1 + 2 + 1, 1 + 2, 2 + 2]


def test_groups_do_not_see_each_other() -> None:
    mixture = MixtureOfExperts(4, 2, inputs=6, hidden=3, outputs=2, capacity=0.7, group=8)
    tokens = torch.randn(24, 6)
    mixed, routing = mixture(tokens)
    parts = [mixture(tokens[:8]), mixture(tokens[8:])]
    torch.testing.assert_close(mixed, torch.cat([part[0] for part in parts]))
    torch.testing.assert_close(routing.balance, parts[0][1].balance / 3 + parts[1][1].balance * 2 / 3)
    assert routing.load.sum() < 48, "nothing was dropped: the test shows nothing"


def test_balance_is_1_for_even_use_and_moves_the_gate_towards_it() -> None:
    mixture = MixtureOfExperts(4, 1, inputs=4, hidden=3, outputs=2, group=4)
    even = mixture(prefer(mixture, "0", "1", "2", "3"))[1].balance
    torch.testing.assert_close(even, torch.tensor(1.0))
    tokens = prefer(mixture, "0", "0", "0", "0")
    before = mixture(tokens)[1].balance
    assert 3.5 < before < 4
    before.backward()
    mixture.gate.weight.data -= mixture.gate.weight.grad
    assert mixture(tokens)[1].balance < before


def test_it_computes_with_few_of_its_experts() -> None:
    (shape,) = FEATURES_WITH_TARGETS.examples
    counted = {}
    for top in (2, 8):
        workload = load_workload("mixture-of-experts", {"experts": 8, "top": top, "capacity": None}, shape)
        found = count(workload, partial(batch_of, FEATURES_WITH_TARGETS, shape))
        others = 2 * (5 * 32 + 32 * 8 + 32)
        counted[top] = found.flops - others
    assert counted[2] == counted[8] * 2 / 8 == 2 * 2 * 2 * 32 * 64


@pytest.mark.quality
@pytest.mark.slow
def test_it_beats_a_perceptron_of_the_same_flops(tmp_path: Path) -> None:
    """On eight affine pieces, over three seeds; and it uses all its experts."""

    def metrics(name: str, *overrides: str) -> dict[str, float]:
        alone = ("resources.workers=1", "strategy={name: single}", "expect={}", "stop={epochs: 12}")
        return train(job(JOB, *alone, *overrides), tmp_path / name).result.metrics

    errors: dict[str, float] = {"mixture": 0.0, "perceptron": 0.0}
    for seed in range(3):
        mixture = metrics(f"mixture-{seed}", f"seed={seed}")
        assert mixture["valid/load_cv"] < 0.5
        assert mixture["valid/dropped"] < 0.05
        errors["mixture"] += mixture["valid/loss"]
        dense = "model={experts: 1, top: 1, hidden: 128}"
        errors["perceptron"] += metrics(f"perceptron-{seed}", f"seed={seed}", dense)["valid/loss"]
    assert errors["mixture"] < 0.95 * errors["perceptron"]
