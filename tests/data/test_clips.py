"""Clips: what is planted in made-up ones, and folders of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from dlsys.data import Dataset, load
from dlsys.data.clips.frame_folders import evenly, frame_folders
from dlsys.data.clips.moving_shapes import MOTIONS, moving_shapes
from dlsys.data.loader import Loader
from dlsys.data.makers import made_by
from dlsys.data.order import Order
from dlsys.errors import DataError
from dlsys.spec.data import FrameFolders, MovingShapes


def everything(part: Dataset) -> dict[str, torch.Tensor]:
    return part.batch(np.arange(len(part)))


def test_shapes_move_as_their_class_says() -> None:
    """The frame that comes next is most like this one where it is moved by the class's step."""
    options = MovingShapes(source="moving-shapes", rows=80, noise=0.0, speed=(2, 2))
    rows = everything(moving_shapes(options, Path()).train)
    clip, label = rows["clip"][:, :, 0], rows["label"]
    moves = {"right": (0, 2), "left": (0, -2), "down": (2, 0), "up": (-2, 0)}
    differences = torch.stack(
        [(clip.roll(moves[name], (2, 3))[:, :-1] - clip[:, 1:]).abs().mean((1, 2, 3)) for name in MOTIONS], 1
    )
    assert torch.equal(differences.argmin(1), label)
    assert differences.min(1).values.max() < 1e-5
    # Whatever of the image a shape leaves, it comes back at the other side: as bright in every frame.
    assert (clip.sum((2, 3)).std(1) < 1e-3 * clip.sum((2, 3)).mean(1)).all()


def test_a_frame_tells_nothing_of_the_motion() -> None:
    """Frames of all classes are alike: the best linear machine on one frame knows no more than chance."""
    rows = everything(moving_shapes(MovingShapes(source="moving-shapes", rows=4000), Path()).train)
    for frame in (0, 7):
        images = rows["clip"][:, frame].flatten(1)
        first = images[::2], torch.nn.functional.one_hot(rows["label"][::2], 4).float()
        weights = torch.linalg.lstsq(
            torch.cat([first[0], torch.ones(len(first[0]), 1)], 1), first[1]
        ).solution
        others = torch.cat([images[1::2], torch.ones(len(images[1::2]), 1)], 1)
        right = ((others @ weights).argmax(1) == rows["label"][1::2]).float().mean()
        assert right < 0.32


def test_the_least_speed_is_not_above_the_most() -> None:
    with pytest.raises(ValidationError, match="must be the least and the most, got 3 and 1"):
        MovingShapes(source="moving-shapes", speed=(3, 1))


def write(folder: Path, clip: str, *shades: int, name: str = "frame{}.png") -> None:
    (folder / clip).mkdir(parents=True)
    for number, shade in enumerate(shades, 1):
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(folder / clip / name.format(number))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two classes of six clips, whose frames get brighter; the last clip has twelve of them."""
    for number in range(5):
        write(tmp_path, f"clips/run/{number}", *(10 * number + frame for frame in range(4)))
        write(tmp_path, f"clips/sit/{number}", *(100 + 10 * number + frame for frame in range(4)))
    write(tmp_path, "clips/run/long", *range(200, 212))
    write(tmp_path, "clips/sit/short", 250)
    return tmp_path


def test_frames_are_in_the_order_of_their_numbers(clips: Path) -> None:
    splits = frame_folders(FrameFolders(source="frame-folders", path="clips", size=8, frames=4), clips)
    parts = [part for part in (splits.train, splits.valid, splits.test) if part]
    found = {}
    for part in parts:
        rows = everything(part)
        for clip, label in zip(rows["clip"], rows["label"].tolist(), strict=True):
            assert clip.shape == (4, 3, 8, 8)
            shades = (clip[:, 0, 0, 0] * 255).round().int().tolist()
            found[tuple(shades)] = splits.learnt["target"]["classes"][label]
    assert len(found) == 12
    assert found[10, 11, 12, 13] == "run"
    assert found[130, 131, 132, 133] == "sit"
    assert found[201, 204, 207, 210] == "run", "frame10 comes after frame9"
    assert found[250, 250, 250, 250] == "sit"


@pytest.mark.parametrize(
    ("there", "wanted", "chosen"),
    [(12, 4, [1, 4, 7, 10]), (4, 4, [0, 1, 2, 3]), (2, 5, [0, 0, 1, 1, 1]), (9, 1, [4])],
)
def test_frames_are_taken_evenly(there: int, wanted: int, chosen: list[int]) -> None:
    assert evenly(there, wanted) == chosen


def test_processes_decode_the_same_clips(clips: Path) -> None:
    rows = load(FrameFolders(source="frame-folders", path="clips", size=8, frames=3), clips).train
    alone = list(Loader(rows, Order(len(rows), 3, "shuffled", seed=0)).epoch(0))
    loader = Loader(rows, Order(len(rows), 3, "shuffled", seed=0))
    with made_by({"train": loader}, workers=2, prefetch=0):
        together = list(loader.epoch(0))
    for one, two in zip(alone, together, strict=True):
        for name, tensor in one.micros[0].batch.items():
            assert torch.equal(tensor, two.micros[0].batch[name])


def test_folders_of_parts_are_the_splits(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        write(tmp_path, f"c/{part}/run/1", 10, 20)
        write(tmp_path, f"c/{part}/sit/1", 30, 40)
    splits = frame_folders(FrameFolders(source="frame-folders", path="c", frames=2), tmp_path)
    assert (len(splits.train), len(splits.valid), splits.test) == (2, 2, None)


def test_what_is_no_clip_is_told_by_its_place(clips: Path) -> None:
    options = FrameFolders(source="frame-folders", path="clips", frames=4)
    (clips / "clips/run/empty").mkdir()
    with pytest.raises(DataError, match="run/empty: has no frame that is an image"):
        frame_folders(options, clips)
    (clips / "clips/run/empty/1.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"run/empty/1\.jpg: cannot be read"):
        frame_folders(options, clips)
    (clips / "flat/run").mkdir(parents=True)
    Image.new("L", (8, 8)).save(clips / "flat/run/1.png")
    with pytest.raises(DataError, match="no clip in 'train': a folder for each class has one for each clip"):
        frame_folders(FrameFolders(source="frame-folders", path="flat"), clips)
