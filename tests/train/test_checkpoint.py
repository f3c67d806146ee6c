"""Checkpoints: exact, durable, checked; nothing but numbers and text comes out of them."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from dlsys.errors import CheckpointError, FencedError, NonFiniteError
from dlsys.train.checkpoint import CheckpointStore, Position, Saved
from dlsys.train.checkpoint.store import read
from dlsys.train.checkpoint.tree import flatten, unflatten


def saved(step: int, **model: torch.Tensor) -> Saved:
    weights = model or {"w": torch.full((3, 2), float(step)), "n": torch.tensor(step)}
    return Saved(
        Position(step, 1, 2, 3.5),
        weights,
        {"main": {"state": {"w": {"exp_avg": torch.randn(3, 2), "step": torch.tensor(float(step))}}}},
        {"main": (torch.randn(4, 2), {"h": torch.randn(4, 1)})},
        [{"random": {"torch": torch.get_rng_state()}}],
        {"schedule": {"last_epoch": step}, "best": 0.5, "metrics": {"valid/loss": 1.25}},
    )


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, keep=2)


def test_round_trip_is_exact(store: CheckpointStore) -> None:
    before = saved(7)
    store.save(before)
    store.wait()
    after = store.latest()
    assert after is not None
    for part in ("position", "model", "optimizers", "carry", "ranks", "loop"):
        assert equal(getattr(before, part), getattr(after, part)), part


def test_the_state_may_change_as_soon_as_save_returns(store: CheckpointStore) -> None:
    state = saved(1)
    store.save(state)
    state.model["w"].zero_()
    state.position.step = 9
    store.wait()
    assert [path.name[-1] for path in store.list()] == ["1"]
    assert store.latest().position.step == 1
    assert torch.equal(store.latest().model["w"], torch.full((3, 2), 1.0))


def test_keeps_the_newest_and_the_best(store: CheckpointStore) -> None:
    for step in range(1, 6):
        store.save(saved(step), best=step == 2)
    store.wait()
    assert [path.name[-1] for path in store.list()] == ["2", "4", "5"]
    assert store.best().name[-1] == "2"


def test_tied_parameters_are_saved_once(store: CheckpointStore, tmp_path: Path) -> None:
    shared = torch.randn(1000, 10)
    store.save(saved(1, embedding=shared, head=shared))
    store.wait()
    assert (store.list()[0] / "model.safetensors").stat().st_size < 1.5 * shared.nbytes
    model = store.latest().model
    assert torch.equal(model["embedding"], shared)
    assert torch.equal(model["head"], shared)


FILES = ["manifest.json", "model.safetensors", "state.safetensors", "state.json"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def link(path: Path) -> None:
    aside = path.with_name("aside")
    path.rename(aside)
    path.symlink_to(aside)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [truncate, flip, empty, Path.unlink, link])
def test_damage_is_named_and_the_one_before_is_used(file: str, damage, tmp_path: Path) -> None:
    if (file, damage) == ("manifest.json", link):
        pytest.skip("a linked manifest is as good as its files' checksums")
    notes: list[str] = []
    store = CheckpointStore(tmp_path, keep=3, note=notes.append)
    for step in (1, 2, 3):
        store.save(saved(step))
    store.wait()
    damage(store.list()[-1] / file)
    assert store.latest().position.step == 2
    # A flipped bit in the manifest may show as a checksum that no file has.
    assert any(name in notes[0] for name in (FILES if damage is flip and file == FILES[0] else [file]))
    assert "step-0000000003" in notes[0]


def test_all_damaged_is_an_error_not_a_fresh_start(store: CheckpointStore) -> None:
    store.save(saved(1))
    store.wait()
    flip(store.list()[0] / "model.safetensors")
    with pytest.raises(CheckpointError, match="all 1 checkpoints"):
        store.latest()


def test_a_damaged_one_is_replaced_when_its_step_comes_again(store: CheckpointStore) -> None:
    store.save(saved(1))
    store.wait()
    truncate(store.list()[0] / "model.safetensors")
    store.save(saved(1))
    store.wait()
    assert store.latest().position.step == 1


class Canary:
    def __reduce__(self):
        return (os.mkdir, (os.environ["CANARY"],))


@pytest.mark.parametrize("file", FILES)
def test_a_pickle_in_any_file_is_refused_and_never_run(
    file: str, store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when the manifest has been made to agree with it."""
    import hashlib
    import json

    canary = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(canary))
    store.save(saved(1))
    store.wait()
    folder = store.list()[0]
    evil = pickle.dumps(Canary())
    (folder / file).write_bytes(evil)
    if file != "manifest.json":
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][file] = {"bytes": len(evil), "sha256": hashlib.sha256(evil).hexdigest()}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        read(folder)
    assert not canary.exists()


def test_a_manifest_cannot_lead_out_of_its_folder(store: CheckpointStore, tmp_path: Path) -> None:
    """Only the three known names are ever opened."""
    import json

    store.save(saved(1))
    store.wait()
    folder = store.list()[0]
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {"../../secret": manifest["files"]["state.json"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="missing"):
        read(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nothing_that_is_not_finite_is_saved(value: float, store: CheckpointStore) -> None:
    store.save(saved(1))
    store.save(saved(2, w=torch.tensor([1.0, value])))
    with pytest.raises(NonFiniteError, match="step 2: w is not finite"):
        store.wait()
    assert store.latest().position.step == 1


def test_a_fenced_writer_changes_nothing(tmp_path: Path) -> None:
    def fenced() -> None:
        raise FencedError("a newer driver")

    store = CheckpointStore(tmp_path)
    store.save(saved(1))
    store.wait()
    late = CheckpointStore(tmp_path, before_commit=fenced)
    late.save(saved(2))
    with pytest.raises(FencedError):
        late.wait()
    assert [path.name[-1] for path in late.list()] == ["1"]
    assert not list(tmp_path.glob(".writing-*"))


def test_tidy_removes_what_a_killed_process_left(store: CheckpointStore, tmp_path: Path) -> None:
    store.save(saved(1))
    store.wait()
    shutil.copytree(store.list()[0], tmp_path / ".writing-0000000002-123")
    (tmp_path / ".best-9").write_text("x")
    store.tidy()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000000001"]


def test_trees_keep_their_shape() -> None:
    tree = {"a": [1, 2.5, None, True, "x"], "b": (torch.ones(2), {"c": torch.zeros(1)}), "n": float("inf")}
    tensors: dict[str, torch.Tensor] = {}
    assert equal(unflatten(flatten(tree, tensors, ""), tensors), tree)
    with pytest.raises(TypeError, match="set cannot be part"):
        flatten({"a": {1, 2}}, {}, "")
