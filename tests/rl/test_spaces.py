"""Every kind of observations and actions: trained on, resumed, measured and exported alike, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from rl_models import check_resumes_exactly, job
from served import page
from spaces_table import SEEN, TAKEN, UNSERVED
from torch.utils._pytree import tree_leaves, tree_map

from dlsys.errors import UsageError
from dlsys.rl.actions import Actions, Taken
from dlsys.rl.engine import build
from dlsys.rl.environments import check_suits
from dlsys.rl.episodes import record
from dlsys.rl.evaluate import play
from dlsys.rl.export import export
from dlsys.rl.observations import NUMBERS, Observations, See
from dlsys.rl.own import Networked
from dlsys.rl.plain import encode
from dlsys.spec.rl.job import RLJob
from dlsys.train.checkpoint import CheckpointStore, Position, Saved

SMALL = {"hidden": [8], "batch_size": 32}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "ppo": {**SMALL, "minibatch_size": 16, "passes": 2},
    "a2c": SMALL,
    "acktr": SMALL,
    "trpo": {**SMALL, "minibatch_size": 16, "passes": 2},
    "reinforce": {**SMALL, "minibatch_size": 16, "passes": 2},
    "dqn": {**SMALL, "starts": 32, "updates": 0.05},
    "sac": {**SMALL, "starts": 32, "updates": 0.01},
    "ddpg": {**SMALL, "starts": 32, "updates": 0.01},
    "td3": {**SMALL, "starts": 32, "updates": 0.01},
    "mbpo": {**SMALL, "start": 96, "every": 32, "rollouts": 20, "updates": 1, "models": 2},
    "mpc": {"hidden": [8], "models": 2, "start": 96, "every": 32, "plans": 12, "horizon": 3},
    **{name: {**SMALL, "updates": 2} for name in ("bc", "marwil", "iql", "cql")},
}


def told(algorithm: str, seen: str = "vector", taken: str = "category", **more: Any) -> RLJob:
    options = more.pop("options", {})
    made = job({"name": algorithm, **ALGORITHMS[algorithm], **options}, "spaces_table:Both", **more)
    place = made.environment.model_copy(update={"options": {"seen": seen, "taken": taken}})
    return made.model_copy(update={"environment": place})


def stacked(space: spaces.Space[Any], count: int) -> Any:
    """Random elements, as arrays of all."""
    space.seed(3)
    found = [space.sample() for _ in range(count)]
    plain = [tree_map(np.asarray, _plain(one)) for one in found]
    return found, tree_map(lambda *parts: torch.as_tensor(np.stack(parts)), plain[0], *plain[1:])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


@pytest.mark.parametrize("kind", SEEN)
def test_a_file_of_torch_sees_what_agents_see(kind: str) -> None:
    observations = Observations(SEEN[kind])
    found, together = stacked(SEEN[kind], 5)
    mine = observations.stack([observations.seen(one) for one in found])
    theirs = See(observations)(together)
    assert list(mine) == list(theirs) == list(observations.shapes)
    for name, value in mine.items():
        assert value.shape == (5, *observations.shapes[name])
        assert value.dtype == observations.types[name]
        np.testing.assert_array_equal(value, theirs[name].numpy())


def test_images_are_found_on_either_side_and_frames_are_channels() -> None:
    for kind, shape in {
        "color": (10, 12, 3),
        "color first": (10, 12, 3),
        "gray": (10, 12, 1),
        "floats": (10, 12, 1),
        "stack": (10, 12, 4),
        "stack of colors": (10, 12, 12),
    }.items():
        assert Observations(SEEN[kind]).shapes == {"image": shape}, kind
    assert list(Observations(SEEN["table of numbers"]).shapes) == [NUMBERS]
    assert list(Observations(SEEN["image and vector"]).shapes) == [NUMBERS, "camera"]
    nested = Observations(SEEN["nested"])
    assert nested.shapes == {NUMBERS: (5,), "inner.camera": (10, 12, 3), "pair.0": (10, 12, 1)}
    first = np.arange(3 * 10 * 12, dtype=np.uint8).reshape(3, 10, 12)
    assert Observations(SEEN["color first"]).seen(first)["image"][4, 5].tolist() == first[:, 4, 5].tolist()
    several = np.arange(4 * 10 * 12 * 3).astype(np.uint8).reshape(4, 10, 12, 3)
    shown = Observations(SEEN["stack of colors"]).seen(several)["image"]
    assert shown[4, 5].tolist() == several[:, 4, 5].ravel().tolist()
    assert np.shares_memory(shown, first) is False
    assert Observations(SEEN["bytes"]).seen(np.full(5, 255, np.uint8))[NUMBERS].tolist() == [1.0] * 5


def test_what_could_be_read_otherwise_is_said() -> None:
    (note,) = Observations(spaces.Box(0, 255, (8, 8, 8), np.uint8)).notes
    assert "(8, 8, 8)" in note
    assert Observations(SEEN["stack"]).notes == []


@pytest.mark.parametrize("kind", TAKEN)
def test_what_is_chosen_is_within_the_space_and_a_file_of_torch_says_the_same(kind: str) -> None:
    actions = Actions(TAKEN[kind])
    actions.chosen.seed(0)
    chosen = np.stack([actions.chosen.sample() for _ in range(20)])
    taken = [actions.taken(one) for one in chosen]
    assert all(TAKEN[kind].contains(one) for one in taken)
    exported = Taken(torch.nn.Identity(), actions)(torch.as_tensor(chosen))
    for index, one in enumerate(taken):
        theirs = tree_leaves(tree_map(lambda part, at=index: part[at].numpy(), exported))
        for mine, its in zip(tree_leaves(_plain(one)), theirs, strict=True):
            np.testing.assert_array_equal(mine, its)
            assert np.asarray(mine).dtype == its.dtype


def check_everywhere(made: RLJob, folder: Path) -> None:
    """It trains, goes on exactly, is measured, and its file of torch does the same as it."""
    check_suits(made.algorithm, made.environment)
    whole, other = build(made), build(made)
    assert isinstance(whole, Networked)
    try:
        check_resumes_exactly(whole, other)
        assert play(whole, made.environment, 2, sees="parts", seed=0, split="test") is not None
        store = CheckpointStore(folder / "checkpoints", keep=1)
        (folder / "checkpoints").mkdir()
        model = {name: torch.as_tensor(value) for name, value in whole.weights().items()}
        store.save(Saved(Position(), model, {"agent": encode(whole.state())}, loop={}))
        store.wait()
        export(made, folder / "checkpoints", folder / "policy.pt2")
        space = whole.observations.space
        found, together = stacked(space, 4)
        seen = whole.observations
        chosen = whole.act(seen.stack([seen.seen(one) for one in found]))
        exported = torch.export.load(folder / "policy.pt2").module()(together)
        for index, one in enumerate(chosen):
            mine = tree_leaves(_plain(whole.actions.taken(one)))
            theirs = tree_leaves(tree_map(lambda part, at=index: part[at].detach().numpy(), exported))
            for left, right in zip(mine, theirs, strict=True):
                np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)
    finally:
        whole.close()
        other.close()


@pytest.mark.parametrize("kind", SEEN)
def test_all_that_can_be_seen_is_served(kind: str, tmp_path: Path) -> None:
    check_everywhere(told("ppo", seen=kind), tmp_path)


@pytest.mark.parametrize("kind", TAKEN)
def test_all_that_can_be_done_is_served(kind: str, tmp_path: Path) -> None:
    check_everywhere(told("ppo", taken=kind), tmp_path)


@pytest.mark.parametrize("algorithm", ["a2c", "trpo", "reinforce", "acktr"])
@pytest.mark.parametrize("kind", ["nested", "whole"])
def test_other_policies_see_and_do_the_same(algorithm: str, kind: str, tmp_path: Path) -> None:
    seen = kind if kind in SEEN else "vector"
    check_everywhere(told(algorithm, seen=seen, taken=kind), tmp_path)


@pytest.mark.parametrize("kind", ["vector", "nested"])
def test_values_see_and_do_the_same(kind: str, tmp_path: Path) -> None:
    check_everywhere(told("dqn", seen=kind, taken="category from five"), tmp_path)


@pytest.mark.parametrize(
    ("algorithm", "seen", "taken"),
    [
        ("sac", "vector", "square"),
        ("sac", "nested", "category from five"),
        ("ddpg", "image and vector", "one number"),
        ("td3", "doubles", "whole"),
        ("mbpo", "dictionary", "bounds"),
    ],
)
def test_actors_and_critics_see_and_do_the_same(
    algorithm: str, seen: str, taken: str, tmp_path: Path
) -> None:
    check_everywhere(told(algorithm, seen, taken, resources={"envs": 8}), tmp_path)


@pytest.mark.parametrize(
    ("algorithm", "seen", "taken"),
    [
        ("bc", "dictionary", "free"),
        ("marwil", "category", "category from five"),
        ("iql", "tuple", "square"),
        ("cql", "bytes", "bounds"),
    ],
)
def test_what_was_recorded_is_learned_from(algorithm: str, seen: str, taken: str, tmp_path: Path) -> None:
    other = told("ppo", seen, taken)
    player = build(other)
    record(player, other.environment, 5, 0, tmp_path / "a.parquet", 0.5, sees="parts")
    player.close()
    options = {"episodes": str(tmp_path / "a.parquet")}
    check_everywhere(told(algorithm, seen, taken, options=options), tmp_path)


@pytest.mark.parametrize("kind", UNSERVED)
def test_what_has_no_fixed_number_of_numbers_is_refused(kind: str) -> None:
    for made in (told("ppo", seen=kind), told("ppo", taken=kind), told("dqn", seen=kind)):
        with pytest.raises(UsageError, match="learns from"):
            check_suits(made.algorithm, made.environment)


def test_values_of_actions_need_one_index() -> None:
    for kind in ("bounds", "categories", "nested"):
        made = told("dqn", taken=kind)
        with pytest.raises(UsageError, match="learns from discrete actions"):
            check_suits(made.algorithm, made.environment)


def test_the_table_of_what_is_served_is_fresh() -> None:
    told = Path(__file__).parents[2] / "docs" / "spaces.md"
    assert told.read_text() == page(), "python tests/rl/served.py > docs/spaces.md"
