"""Clips: shapes that move, and folders of frames."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import QUICK, job
from PIL import Image
from pydantic import ValidationError

from dlsys.data import Splits
from dlsys.data.augment import augment
from dlsys.data.clips.frame_folders import frame_folders, numbered
from dlsys.data.clips.moving_shapes import moving_shapes
from dlsys.data.loader import Loader
from dlsys.data.makers import made_by
from dlsys.data.order import Order
from dlsys.errors import DataError, SpecError
from dlsys.spec.data import FrameFolders, MovingShapes
from dlsys.spec.train.regularizer import DataAugmentation


def moving(**options: object) -> Splits:
    return moving_shapes(
        MovingShapes.model_validate({"source": "moving-shapes", "noise": 0, **options}), Path()
    )


def everything(splits: Splits) -> dict[str, torch.Tensor]:
    return splits.train.batch(np.arange(len(splits.train)))


def test_shapes_move_as_their_class_says() -> None:
    splits = moving(rows=80, frames=5, speeds=[2, 2])
    assert splits.learnt["target"]["classes"] == ["left", "right", "up", "down"]
    batch = everything(splits)
    for (down, right), label in (((0, -2), 0), ((0, 2), 1), ((-2, 0), 2), ((2, 0), 3)):
        clips = batch["clip"][batch["label"] == label]
        assert len(clips) >= 15
        # What leaves on one side comes in on the other.
        torch.testing.assert_close(clips[:, 1:], clips[:, :-1].roll((down, right), (-2, -1)))


@pytest.mark.parametrize("frame", [0, 4])
def test_a_single_frame_tells_no_motion(frame: int) -> None:
    """In every class the shape is as often at each pixel, in the first frame and in the last one."""
    batch = everything(moving(rows=2400, frames=5, size=16, sides=[6, 6]))
    pictures = batch["clip"][:, frame, 0]
    differs = (pictures - pictures.flatten(1).median(1).values[:, None, None]).abs() > 0.1
    for label in range(4):
        seen = differs[batch["label"] == label].float().mean(0)
        share = float(seen.mean())
        # Five standard errors of a share of 480 pixels or more.
        assert float((seen - share).abs().max()) < 5 * (share * (1 - share) / 460) ** 0.5


def test_motions_that_cannot_be_told_are_refused() -> None:
    with pytest.raises(ValidationError, match="one way looks like the other: stay below half of size"):
        MovingShapes(source="moving-shapes", size=16, speeds=(1, 8))
    with pytest.raises(ValidationError, match="sides: a shape of 20 pixels does not fit into 16"):
        MovingShapes(source="moving-shapes", size=16, sides=(6, 20))
    with pytest.raises(ValidationError, match="the smaller number stands first"):
        MovingShapes(source="moving-shapes", speeds=(3, 1))


def film(folder: Path, shades: list[int], *, name: str = "frame_{}.png") -> None:
    """A clip each of whose frames is of one shade."""
    folder.mkdir(parents=True)
    for number, shade in enumerate(shades):
        Image.new("L", (9, 8), shade).save(folder / name.format(number))


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two classes of ten clips of 12 frames, of shades that rise by 1: from 0, 20, …, and so on."""
    for clip in range(10):
        film(tmp_path / "videos" / "run" / f"clip{clip}", [20 * clip + i for i in range(12)])
        film(tmp_path / "videos" / "walk" / f"clip{clip}", [20 * clip + 13 - i for i in range(12)])
    return tmp_path / "videos"


def read(videos: Path, **options: object) -> Splits:
    told = {"source": "frame-folders", "path": videos.name, "size": 4, "channels": 1, "frames": 3, **options}
    return frame_folders(FrameFolders.model_validate(told), videos.parent)


def refused(videos: Path, **options: object) -> str:
    with pytest.raises(DataError) as error:
        read(videos, **options)
    return str(error.value)


def shades(splits: Splits) -> list[list[int]]:
    """Of every clip, by part and place."""
    return [
        (clip[:, 0, 0, 0] * 255).round().int().tolist()
        for part in (splits.train, splits.valid, splits.test)
        if part is not None
        for clip in part.batch(np.arange(len(part)))["clip"]
    ]


def test_frames_are_in_the_order_of_their_numbers_and_evenly_spread(videos: Path) -> None:
    splits = read(videos)
    # Of 12 frames in three parts of four, the third ones: 2, 6 and 10.
    rising = [[20 * clip + i for i in (2, 6, 10)] for clip in range(10)]
    falling = [[20 * clip + 13 - i for i in (2, 6, 10)] for clip in range(10)]
    assert sorted(shades(splits)) == sorted(rising + falling)
    assert splits.shape.row == {"clip": (3, 1, 4, 4), "label": ()}
    assert splits.learnt["target"]["classes"] == ["run", "walk"]
    batch = everything(splits)
    rises = batch["clip"][:, 2, 0, 0, 0] > batch["clip"][:, 0, 0, 0, 0]
    assert torch.equal(batch["label"], torch.where(rises, 0, 1))


def test_all_frames_are_seen_where_there_are_no_more(videos: Path) -> None:
    assert [20 * 3 + i for i in range(12)] in shades(read(videos, frames=12))


def test_short_clips_are_refused_or_repeated(videos: Path) -> None:
    film(videos / "run" / "short", [7, 9])
    assert "run/short: 2 frames, and data.frames wants 5" in refused(videos, frames=5)
    assert [7, 7, 9, 9, 9] in shades(read(videos, frames=5, short="repeat"))


def test_parts_may_have_folders_of_their_own(videos: Path) -> None:
    parts = videos.parent / "parts"
    for part in ("train", "test"):
        (parts / part).mkdir(parents=True)
        for kind in ("run", "walk"):
            (videos / kind).rename(parts / part / kind) if part == "train" else film(
                parts / part / kind / "a", [250] * 3
            )
    splits = read(parts)
    assert splits.test is not None
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (18, 2, 2)
    assert shades(splits)[-2:] == [[250] * 3] * 2


def test_what_is_no_clip_is_named(videos: Path) -> None:
    (videos / "run" / "empty").mkdir()
    assert "run/empty: no frames" in refused(videos)
    (videos / "run" / "empty").rmdir()
    (videos / "run" / "notes.txt").write_text("no image")
    assert len(shades(read(videos))) == 20
    Image.new("L", (4, 4)).save(videos / "run" / "alone.png")
    assert "run/alone.png: is an image; frames must lie in a folder for each clip" in refused(videos)


def test_a_clip_with_a_damaged_frame(videos: Path) -> None:
    for place, seen in ((1, False), (2, True)):  # of the frames 2, 6 and 10
        (videos / "walk" / "clip4" / f"frame_{place}.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
        assert len(shades(read(videos))) == 20 - seen
    splits = read(videos)
    assert splits.notes == ("Left out 1 clips with unreadable frames: walk/clip4/frame_2.png.",)
    assert "walk/clip4/frame_2.png: cannot be read" in refused(videos, corrupt="error")


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_clips_are_not_mixed(name: str) -> None:
    variations = f"regularize=[{{name: data-augmentation, flip: true, {name}: 0.2}}]"
    told = ("workload=action-recognition", "model={}", "data={source: moving-shapes}")
    assert job(QUICK, *told)
    with pytest.raises(SpecError, match=f"{name}: mixes images with classes, and these are clips"):
        job(QUICK, *told, variations)


def test_other_processes_decode_the_very_same_clips(videos: Path) -> None:
    told = DataAugmentation(name="data-augmentation", flip=True, brightness=0.2, noise=0.1)
    rows = read(videos, frames=5).train
    loader = Loader(rows, Order(len(rows), 4, "shuffled", 3), vary=partial(augment, options=told))
    here = [micro.batch for step in loader.epoch(1) for micro in step.micros]
    with made_by({"train": loader}, workers=2, prefetch=0):
        there = [micro.batch for step in loader.epoch(1) for micro in step.micros]
    assert len(here) == 4
    for ours, theirs in zip(here, there, strict=True):
        assert ours.keys() == theirs.keys() == {"clip", "label", "key"}
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_numbers_in_names_decide_their_order() -> None:
    names = ["a.png", "f2b1.png", "f2b10.png", "f02b3.png", "f10.png", "9.png"]
    assert sorted(names, key=numbered) == ["9.png", "a.png", "f02b3.png", "f2b1.png", "f2b10.png", "f10.png"]
