"""Parameter groups: rates and decays by patterns of names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from harness import QUICK, job, train, with_workers

from dlsys.errors import SpecError, UsageError

MINE = ("workload=lenet-5", "model={width: 0.5}", "stop.steps=4")


def adam(groups: str) -> str:
    return f"optimizer={{name: adamw, lr: 0.01, weight_decay: 0.1, groups: {groups}}}"


def names(folder: Path) -> list[str]:
    return [*train(job(QUICK, *MINE, "stop.steps=1"), folder).weights]


def test_rates_are_the_groups_own(tmp_path: Path) -> None:
    """Of a first step: each weight moves by its factor times what it moves without; of groups, the first."""
    known = names(tmp_path / "names")
    other = next(name for name in known if not name.endswith("bias"))
    groups = f"[{{match: ['*bias'], lr_factor: 3}}, {{match: ['{other}', '*bias'], lr_factor: 0.25}}]"

    def after(folder: str, optimizer: str) -> dict[str, torch.Tensor]:
        return train(job(QUICK, *MINE, "stop.steps=1", f"optimizer={optimizer}"), tmp_path / folder).weights

    begun = after("still", "{name: sgd, lr: 1.0e-30}")
    plain = after("plain", "{name: sgd, lr: 0.1}")
    for name, found in after("groups", f"{{name: sgd, lr: 0.1, groups: {groups}}}").items():
        factor = 3 if name.endswith("bias") else 0.25 if name == other else 1
        torch.testing.assert_close(found - begun[name], factor * (plain[name] - begun[name]))


def test_decay_is_the_groups_own(tmp_path: Path) -> None:
    groups = "[{match: ['*'], weight_decay: 0.5}]"
    own = train(job(QUICK, *MINE, adam(groups)), tmp_path / "own")
    text = "optimizer={name: adamw, lr: 0.01, weight_decay: 0.5}"
    whole = train(job(QUICK, *MINE, text), tmp_path / "whole")
    for name, tensor in whole.weights.items():
        assert torch.equal(own.weights[name], tensor)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ring", "fsdp", "tensor", "pipeline"])
def test_they_are_the_same_under_every_strategy(strategy: str, tmp_path: Path) -> None:
    """Of a pipeline's workers some have nothing of a group."""
    first = names(tmp_path / "names")[0]
    text = adam(f"[{{match: ['*bias'], weight_decay: 0}}, {{match: ['{first}'], lr_factor: 0.1}}]")
    schedule = "schedule={name: one-cycle, max_lr: 0.02}"
    single = train(job(QUICK, *MINE, text, schedule), tmp_path / "one")
    asked = (f"strategy.name={strategy}", "resources.workers=2")
    several = with_workers(job(QUICK, *MINE, text, schedule, *asked), tmp_path / "two")
    for name, tensor in single.weights.items():
        torch.testing.assert_close(several.weights[name], tensor, atol=1e-5, rtol=1e-5)
    # A checkpoint of either goes on under the other.
    longer = train(job(QUICK, *MINE, text, "stop.steps=6"), tmp_path / "two")
    assert longer.result.position.step == 6


def test_resumed_is_uninterrupted_and_other_groups_are_refused(tmp_path: Path) -> None:
    text = adam("[{match: ['*bias'], weight_decay: 0, lr_factor: 2}]")
    whole = train(job(QUICK, *MINE, text), tmp_path / "whole")
    train(job(QUICK, *MINE, text), tmp_path / "half", stop_after=2)
    rest = train(job(QUICK, *MINE, text), tmp_path / "half")
    for name, tensor in whole.weights.items():
        assert torch.equal(rest.weights[name], tensor)
    with pytest.raises(UsageError, match=r"optimizer\.groups: the checkpoint has other groups"):
        train(job(QUICK, *MINE, adam("[]"), "stop.steps=9"), tmp_path / "half")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("strategy.name=zero", "resources.workers=2"),
            "groups: is for .* and moe, got strategy zero",
        ),
        (
            ("strategy.name=ps", "resources.workers=2"),
            "groups: is for .* and moe, got strategy ps",
        ),
    ],
)
def test_where_they_cannot_be_is_told(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        job(QUICK, *MINE, adam("[{match: ['*bias'], weight_decay: 0}]"), *overrides)


def test_a_pattern_that_matches_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape("optimizer.groups: no parameter is called 'bais'.")):
        train(job(QUICK, *MINE, adam("[{match: [bais], lr_factor: 2}]")), tmp_path)
