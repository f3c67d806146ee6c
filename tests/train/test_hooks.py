"""A user's own code at the moments of training."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import QUICK, job, train, with_workers

from dlsys.errors import SpecError, UsageError
from dlsys.train.checkpoint import CheckpointStore
from dlsys.train.hooks import Run

ME = __name__
EVENTS: list[tuple[Any, ...]] = []


class Watcher:
    """Has all moments, draws random numbers and writes over what it is given."""

    def __init__(self, every: int = 1) -> None:
        self.every, self.steps = every, 0

    def start(self, run: Run) -> None:
        EVENTS.append(("start", run.step))

    def step(self, run: Run) -> None:
        self.steps += 1
        random.random(), torch.rand(3)
        if run.step % self.every == 0:
            weights = run.weights()
            run.log({"hook/norm": sum(float(w.norm()) for w in weights.values())})
            for weight in weights.values():
                weight.zero_()

    def evaluated(self, run: Run, split: str, metrics: Mapping[str, float]) -> None:
        assert metrics[f"{split}/loss"] == run.metrics[f"{split}/loss"]
        EVENTS.append(("evaluated", split, run.step))

    def saved(self, run: Run, best: bool) -> None:
        EVENTS.append(("saved", run.step, best))

    def end(self, run: Run, reason: str) -> None:
        (run.artifacts / "told.txt").write_text(f"{reason} after {self.steps}")
        EVENTS.append(("end", reason))

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]


class Freezer:
    """Takes every weight to 0 at a step."""

    changes = True

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, run: Run) -> None:
        if run.step == self.at:
            with torch.no_grad():
                for parameter in run.model.parameters():
                    parameter.zero_()


class Meddler:
    def step(self, run: Run) -> None:
        run.model.eval()


class Loud:
    def step(self, run: Run) -> None:
        run.log({"train/loss": 0.0})


class Odd:
    def saved(self, run: Run, best: bool) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"tensor": torch.zeros(1)}


class Nothing:
    pass


WATCHED = (f"hooks=[{{name: {ME}:Watcher, every: 5}}]", "evaluate=6 steps", "checkpoint.best=valid/accuracy")
DROPS = ("workload=lenet-5", "model={width: 0.5, dropout: 0.5}")


def test_moments_come_in_order_and_change_nothing(tmp_path: Path) -> None:
    EVENTS.clear()
    (tmp_path / "with" / "artifacts").mkdir(parents=True)
    found = train(job(QUICK, *DROPS, *WATCHED), tmp_path / "with")
    plain = train(job(QUICK, *DROPS, *WATCHED[1:]), tmp_path / "without")
    assert found.losses == plain.losses
    for name, weight in plain.weights.items():
        assert torch.equal(found.weights[name], weight)
    kinds = [event[0] for event in EVENTS]
    assert (kinds[0], kinds[-1]) == ("start", "end")
    assert [event[2] for event in EVENTS if event[:2] == ("evaluated", "valid")] == [6, 12]
    assert EVENTS[-1] == ("end", "finished")
    assert (tmp_path / "with" / "artifacts" / "told.txt").read_text() == "finished after 12"
    assert sorted(found.points["hook/norm"]) == [5, 10]
    # What is told of a best checkpoint is of the one that has improved.
    assert ("saved", 6, True) in EVENTS


def test_a_hook_goes_on_where_a_checkpoint_left_it(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    train(job(QUICK, *WATCHED), tmp_path, stop_after=5)
    train(job(QUICK, *WATCHED), tmp_path)
    assert (tmp_path / "artifacts" / "told.txt").read_text() == "finished after 12"


def test_several_workers_each_have_theirs(tmp_path: Path) -> None:
    """And weights of a cut model are whole."""
    (tmp_path / "two" / "artifacts").mkdir(parents=True)
    (tmp_path / "one" / "artifacts").mkdir(parents=True)
    one = train(job(QUICK, *WATCHED), tmp_path / "one")
    two = with_workers(job(QUICK, *WATCHED, "strategy.name=fsdp", "resources.workers=2"), tmp_path / "two")
    assert two.points["hook/norm"] == pytest.approx(one.points["hook/norm"], rel=1e-4)


@pytest.mark.parametrize("strategy", ["single", "ddp"])
def test_one_that_says_so_changes_training(strategy: str, tmp_path: Path) -> None:
    workers = f"resources.workers={1 if strategy == 'single' else 2}"
    text = (f"hooks=[{{name: {ME}:Freezer, at: 12}}]", f"strategy.name={strategy}", workers)
    found = with_workers(job(QUICK, *text), tmp_path)
    assert not any(weight.any() for weight in found.weights.values())
    assert f"the hook {ME}:Freezer may change what is computed" in found.notes


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("Meddler", "looks on and changes nothing: use run.weights"),
        ("Loud", "the metric 'train/loss' is training's own: log hook/train/loss"),
        ("Odd", r"state_dict\(\) gives what JSON cannot hold"),
        ("Nothing", r"hooks\.0: .*:Nothing has none of the methods start, step, evaluated, saved, end"),
    ],
)
def test_what_a_hook_may_not_is_told(hook: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        train(job(QUICK, f"hooks=['{ME}:{hook}']"), tmp_path)


def test_a_cut_model_is_not_changed(tmp_path: Path) -> None:
    text = (f"hooks=[{{name: {ME}:Freezer, at: 2}}]", "strategy.name=fsdp", "resources.workers=2")
    with pytest.raises(AssertionError, match="which it may under single, ddp, ring, got fsdp"):
        with_workers(job(QUICK, *text), tmp_path)


@pytest.mark.parametrize(
    ("hooks", "said"),
    [
        ("[nowhere:Hook]", r"hooks\[0\]: no module 'nowhere'"),
        (f"['{ME}:Wacher']", r"hooks\[0\]: .* defines no 'Wacher'. Did you mean 'Watcher'"),
        (f"[{{name: '{ME}:Watcher', evry: 2}}]", r"hooks\[0\].evry: unknown key: .* Did you mean 'every'"),
        (f"['{ME}:Freezer']", r"hooks\[0\].at: is required and missing"),
        (f"['{ME}:Watcher', '{ME}:Watcher']", r"hooks\[1\]: .* stands twice: keep one"),
        ("[{every: 2}]", r"hooks\[0\]: '' is not package.module:Class"),
    ],
)
def test_a_bad_section_is_told(hooks: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        job(QUICK, f"hooks={hooks}")


def test_a_checkpoint_knows_its_hooks(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    train(job(QUICK, *WATCHED), tmp_path)
    saved = CheckpointStore(tmp_path / "checkpoints").latest()
    assert saved is not None
    assert saved.loop["hooks"] == {f"{ME}:Watcher": {"steps": 12}}


def test_the_documents_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    blocks = re.findall(r"^```(?:python|yaml)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (code,) = [block for block in blocks if "norm/" in block]
    (example,) = [block for block in blocks if "my_hooks:" in block]
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "my_hooks.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = train(job(example), tmp_path)
    assert {name for name in found.points if name.startswith("norm/")} == {
        f"norm/{name}" for name in found.weights
    }
    assert (tmp_path / "artifacts" / "last.txt").read_text().startswith("test at step")
