"""`dlsys.load_model`: the module that was tested, without the data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import dlsys
from dlsys import data
from dlsys.api.model import _shape
from dlsys.errors import CheckpointError, UsageError
from dlsys.paths import RunPaths, new_run_id, write_json
from dlsys.spec import load, yaml
from dlsys.spec.ready import find
from dlsys.spec.rows import Shape
from dlsys.train.checkpoint.store import CheckpointStore, read


@pytest.fixture
def copy(trained: dlsys.Run, home: Path) -> RunPaths:
    """The run in a home of this test, to be changed."""
    assert trained.folder is not None
    shutil.copytree(trained.folder, home / "runs" / trained.id)
    return RunPaths.find(trained.id)


def test_it_is_the_model_that_was_tested(trained: dlsys.Run, there: Path) -> None:
    """On the very rows of the test, it gives the very figure."""
    model = dlsys.load_model(trained.id[:8])
    assert not model.training
    rows = data.load(load(find("quickstart")).training.data, there).test
    assert isinstance(rows, data.TensorDataset)
    with torch.no_grad():
        hits = model(rows.fields["image"]).argmax(1) == rows.fields["label"]
    assert hits.double().mean().item() == pytest.approx(trained.metrics["test/accuracy"], abs=1e-12)


def test_the_best_checkpoint_or_the_last(copy: RunPaths) -> None:
    store = CheckpointStore(copy.checkpoints)
    first, last = store.list()
    (copy.checkpoints / "best").write_text(first.name)

    def holds(place: Path, *, best: bool) -> bool:
        weights, saved = dlsys.load_model(copy.id, best=best).state_dict(), read(place).model
        return all(torch.equal(weights[name], saved[name]) for name in saved)

    assert holds(first, best=True)
    assert holds(last, best=False)
    assert not holds(first, best=False)
    (copy.checkpoints / "best").unlink()
    assert holds(last, best=True), "no metric was watched: what was tested is the last"


def test_loading_draws_no_random_numbers(trained: dlsys.Run) -> None:
    torch.manual_seed(5)
    undisturbed = torch.rand(3)
    torch.manual_seed(5)
    dlsys.load_model(trained)
    assert torch.equal(torch.rand(3), undisturbed)


@pytest.mark.usefixtures("store")
def test_the_data_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lazy layer's size came from rows that are no more; numbers in fp64 stay so."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{i % 7},{i % 5},{i % 3},{'ab'[i % 2]}\n" for i in range(60))
    Path("rows.csv").write_text("one,two,three,kind\n" + rows)
    job = {
        "kind": "train",
        "name": "table",
        "workload": "torch.nn:LazyLinear",
        "model": {"out_features": 2},
        "data": {"source": "csv", "path": Path("rows.csv"), "target": "kind"},
        "batch_size": "all",
        "precision": "fp64",
        "stop": {"epochs": 1},
    }
    run = dlsys.run(job, quiet=True)
    Path("rows.csv").unlink()
    model = dlsys.load_model(run)
    features = model.in_features
    assert model(torch.zeros(4, features, dtype=torch.float64)).shape == (4, 2)


def test_a_checkpoint_of_an_earlier_version_asks_the_data(copy: RunPaths) -> None:
    loaded, saved = load(copy.spec), CheckpointStore(copy.checkpoints).latest()
    assert saved is not None
    told = saved.loop.pop("shape")
    assert _shape(saved, loaded) == Shape.of_json(told)
    assert Shape.of_json(json.loads(json.dumps(told))) == data.load(loaded.training.data, loaded.folder).shape


def test_code_that_has_changed_since_is_told(copy: RunPaths) -> None:
    spec = yaml.read(copy.spec.read_text(), "spec").data
    spec["model"]["width"] = 2.0
    copy.spec.write_text(yaml.dump(spec))
    with pytest.raises(CheckpointError, match=r"of step 46 do not fit what lenet-5 builds: .*size mismatch"):
        dlsys.load_model(copy.id)


def test_what_has_no_such_model_says_where_it_is(home: Path) -> None:
    paths = RunPaths.create(new_run_id("agent"))
    job = load(find("rl/cartpole_ppo")).job
    paths.spec.write_text(yaml.dump(job.model_dump(mode="json")))
    write_json(paths.record, {"uri": "sqlite:///nowhere.db", "folder": str(home)})
    with pytest.raises(UsageError, match="trains an agent") as caught:
        dlsys.load_model(paths.id)
    assert caught.value.__notes__ == [
        f"dlsys runs export {paths.id} policy.pt2, then torch.export.load(...).module()."
    ]
