"""The loop of `kind: rl`, with an agent that is quickly understood."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from PIL import Image

from dlsys.errors import NonFiniteError
from dlsys.rl.agent import Iteration
from dlsys.rl.engine import build, run_agent
from dlsys.rl.evaluate import play
from dlsys.rl.loop import Loop
from dlsys.rl.own import Networked
from dlsys.spec.rl.job import RLJob
from dlsys.train.checkpoint import CheckpointStore
from dlsys.train.engine import Surroundings
from dlsys.train.world import World


class Leaning:
    """Pushes the cart to where the pole leans; "learns" to wait fewer iterations before it does."""

    def __init__(self) -> None:
        self.iterations = 0
        self.random = np.random.default_rng(0)
        self.value = 0.0

    def iterate(self) -> Iteration:
        self.iterations += 1
        self.value += float(self.random.normal())
        return Iteration(steps=100, returns=[20.0], lengths=[20], figures={"loss": self.value})

    def act(self, observations: dict[str, np.ndarray]) -> np.ndarray:
        seen = observations["numbers"]
        leans = seen[:, 2] + seen[:, 3] > 0
        return leans.astype(int) if self.iterations >= 3 else np.zeros(len(seen), int)

    def state(self) -> dict[str, Any]:
        return {"iterations": self.iterations, "value": self.value, "random": self.random.bit_generator.state}

    def load(self, state: dict[str, Any]) -> None:
        self.iterations, self.value = state["iterations"], state["value"]
        self.random.bit_generator.state = state["random"]

    def weights(self) -> dict[str, np.ndarray]:
        return {"value": np.array([self.value])}

    def close(self) -> None:
        pass


class Recorder:
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.notes: list[str] = []

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.rows.append((step, values))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def tags(self, values: dict[str, str]) -> None:
        pass

    def of(self, name: str) -> list[tuple[int, float]]:
        return [(step, values[name]) for step, values in self.rows if name in values]


def job(**changes: Any) -> RLJob:
    plain = {
        "kind": "rl",
        "name": "x",
        "environment": {"name": "CartPole-v1"},
        "algorithm": {"name": "ppo"},
        "stop": {"epochs": 6},
        "evaluate": "2 epochs",
        "episodes": {"valid": 5, "test": 7},
        "checkpoint": {"every": "1 epoch"},
    }
    return RLJob.model_validate(plain | changes)


def loop(folder: Path, told: RLJob, **around: Any) -> tuple[Loop, Recorder]:
    recorder = Recorder()
    store = CheckpointStore(folder / "checkpoints", keep=10)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    made = Surroundings(
        folder=folder, recorder=recorder, store=store, artifacts=folder / "artifacts", **around
    )
    return Loop(told, Leaning(), made), recorder


def test_it_ends_after_its_epochs_and_tells_what_it_measured(tmp_path: Path) -> None:
    made, recorder = loop(tmp_path, job())
    result = made.run()
    assert result.reason == "finished"
    assert (result.position.step, result.position.epoch) == (600, 6)
    assert [step for step, _ in recorder.of("valid/return")] == [200, 400, 600]
    assert [step for step, _ in recorder.of("test/return")] == [600]
    assert result.metrics["valid/return"] > 3 * dict(recorder.of("valid/return"))[200]
    assert result.metrics["train/return"] == 20.0


def test_each_evaluation_episode_is_kept_with_its_seed(tmp_path: Path) -> None:
    made, _ = loop(tmp_path, job())
    made.run()
    with open(tmp_path / "artifacts" / "episodes.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["split"] for row in rows] == ["valid"] * 15 + ["test"] * 7
    valid = [row["seed"] for row in rows if row["split"] == "valid"]
    assert valid[:5] == valid[5:10] == valid[10:], "every evaluation starts alike"
    assert not {row["seed"] for row in rows if row["split"] == "test"} & set(valid)


class Fading(Leaning):
    """Knows what to do in its third and fourth iteration alone."""

    def act(self, observations: dict[str, np.ndarray]) -> np.ndarray:
        known = super().act(observations)
        return known if self.iterations < 5 else np.zeros_like(known)


def test_the_best_agent_is_tested(tmp_path: Path) -> None:
    told = job(checkpoint={"every": "1 epoch", "best": "valid/return"})
    made, recorder = loop(tmp_path, told)
    made.agent = Fading()
    result = made.run()
    valid = dict(recorder.of("valid/return"))
    assert result.metrics["test/return"] > 3 * valid[600]
    assert recorder.notes[0].startswith("the test is of the best checkpoint: step 400, valid/return ")
    last, _ = loop(tmp_path / "last", job())
    last.agent = Fading()
    assert last.run().metrics["test/return"] < 2 * valid[600]


def test_a_target_ends_it_as_soon_as_it_is_measured(tmp_path: Path) -> None:
    made, _ = loop(tmp_path, job(stop={"epochs": 50, "target": {"valid/return": ">= 100"}}))
    result = made.run()
    assert (result.reason, result.position.epoch) == ("target", 4)


@pytest.mark.parametrize(("interval", "steps"), [("250 steps", [300, 500, 600]), ("3 epochs", [300, 600])])
def test_intervals_of_steps_are_met_though_an_iteration_takes_many(
    interval: str, steps: list[int], tmp_path: Path
) -> None:
    made, recorder = loop(tmp_path, job(evaluate=interval))
    made.run()
    assert [step for step, _ in recorder.of("valid/return")] == steps


def test_a_resumed_run_computes_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole, told = loop(tmp_path, job())
    whole.run()
    (tmp_path / "cut").mkdir()
    first, _ = loop(tmp_path / "cut", job(stop={"epochs": 3}), tested=False)
    first.run()
    second, after = loop(tmp_path / "cut", job())
    saved = second.around.store.latest()
    assert saved is not None
    second.resume(saved)
    second.run()
    assert after.of("train/loss") == told.of("train/loss")[3:]
    assert after.of("test/return") == told.of("test/return")
    assert second.agent.weights() == whole.agent.weights()
    assert after.notes == ["continues from the checkpoint of step 300"]


def test_the_best_checkpoint_is_kept(tmp_path: Path) -> None:
    made, _ = loop(tmp_path, job(checkpoint={"every": "100 epochs", "best": "valid/return"}))
    made.run()
    best = made.around.store.best()
    assert best is not None
    assert best.name.endswith("400"), "at 600 it was as good, and no better"


def test_who_asks_for_the_end_gets_it_with_a_checkpoint_and_no_evaluation(tmp_path: Path) -> None:
    made, recorder = loop(tmp_path, job(evaluate="1 epoch"), stop_requested=lambda: True)
    result = made.run()
    assert (result.reason, result.position.epoch) == ("interrupted", 1)
    assert recorder.of("valid/return") == []
    assert made.around.store.latest() is not None


def test_episodes_do_not_depend_on_how_many_are_played() -> None:
    agent = Leaning()
    agent.iterations = 3
    few = play(agent, job().environment, 3, sees="parts", seed=1, split="valid")
    many = play(agent, job().environment, 40, sees="parts", seed=1, split="valid")
    assert many.seeds[:3] == few.seeds
    assert many.returns[:3] == few.returns
    assert len(set(many.returns)) > 1


def test_a_loss_that_is_no_number_ends_the_run_and_saves_nothing(tmp_path: Path) -> None:
    made, _ = loop(tmp_path, job())
    sound = made.agent.iterate

    def iterate() -> Iteration:
        did = sound()
        return did if made.position.epoch < 1 else replace(did, figures={"loss": float("nan")})

    made.agent.iterate = iterate  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match="step 200: train/loss is nan"):
        made.run()
    saved = made.around.store.latest()
    assert saved is not None
    assert saved.position.step == 100


def test_a_run_leaves_pictures_of_an_episode(tmp_path: Path) -> None:
    made, recorder = loop(tmp_path, job(stop={"epochs": 3}))
    made.agent.values = lambda seen: np.full(len(seen), 10.0)  # type: ignore[attr-defined]
    made.run()
    folder = tmp_path / "artifacts"
    with Image.open(folder / "episode.gif") as film, Image.open(folder / "strip.png") as strip:
        assert film.n_frames > 20
        assert strip.width > 7 * film.width
    assert (folder / "values.png").stat().st_size > 5000
    assert recorder.notes == []


def test_an_environment_without_pictures_is_a_note(tmp_path: Path) -> None:
    told = job(environment={"name": "test_agent_loop:Blind"}, stop={"epochs": 1})
    made, recorder = loop(tmp_path, told)
    made.agent.act = lambda seen: np.zeros(len(seen["numbers"]), int)  # type: ignore[method-assign]
    made.run()
    (note,) = recorder.notes
    assert note.startswith("no pictures of an episode: ")


class Blind(CartPoleEnv):
    """Draws nothing, and takes no `render_mode`."""

    def __init__(self) -> None:
        super().__init__()


def test_an_agent_begins_with_the_policy_of_a_file(tmp_path: Path) -> None:
    told = job(
        algorithm={"name": "ppo", "lr": 0.0, "hidden": [8], "batch_size": 64},
        init={"file": "before.pt"},
        stop={"epochs": 1},
        episodes={"valid": 1, "test": 1},
    )
    before = build(told)
    assert isinstance(before, Networked)
    with torch.no_grad():
        for parameter in before.network.parameters():
            parameter.add_(1.0)
    torch.save(before.network.state_dict(), tmp_path / "before.pt")
    before.close()
    made, recorder = loop(tmp_path, told)
    run_agent(told, World(), made.around)
    assert recorder.notes[0].startswith("begins with 6 tensors of before.pt")
    saved = made.around.store.latest()
    assert saved is not None
    for name, value in before.weights().items():
        np.testing.assert_array_equal(saved.model[name].numpy(), value)
