"""A detector trained on files in COCO's format: its figures are pycocotools', for any number of workers."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
from harness import in_workers, job, train, train_worker
from objects_on_disk import as_coco, scenes
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

JOB = """
kind: train
name: test
workload: ssd
model: {channels: [8, 16, 16], levels: 2, sizes: [0.4, 0.7]}
data: {source: coco, annotations: labels.json, images: images, size: 32, valid: 0.2, test: 0.2}
batch_size: 16
optimizer: {name: adam, lr: 0.01}
precision: fp64
stop: {epochs: 12}
evaluate: 12 epochs
"""


@pytest.mark.slow
def test_the_figures_are_pycocotools_and_two_workers_one(tmp_path: Path) -> None:
    rows = scenes(110, size=40, sides=(14, 24), objects=(1, 3), kinds=("circle", "square", "triangle"))
    for folder in ("alone", "shared"):
        as_coco(rows, tmp_path / folder, crowds=True)
    alone = train(job(JOB), tmp_path / "alone").result.metrics
    ddp = job(JOB, "strategy.name=ddp", "resources.workers=2")
    shared = in_workers(2, train_worker, ddp, str(tmp_path / "shared"))[0].result.metrics
    figures = {name: value for name, value in alone.items() if name.startswith(("valid/", "test/"))}
    assert shared == pytest.approx({**shared, **figures}, abs=1e-6)
    assert alone["test/map50"] > 0.05

    results = json.loads((tmp_path / "shared" / "artifacts" / "detections.json").read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "alone" / "labels.json"))
        told = COCOeval(truth, truth.loadRes(results), "bbox")
        told.params.imgIds = sorted({result["image_id"] for result in results})
        told.evaluate()
        told.accumulate()
        told.summarize()
    names = ["map", "map50", "map75", "map_small", *[""] * 2, "recall1", "recall10", "recall100"]
    for name, value in zip(names, told.stats, strict=False):
        if name:
            assert alone[f"test/{name}"] == pytest.approx(float(value), abs=1e-6), name
    with Image.open(tmp_path / "alone" / "artifacts" / "detections.png") as picture:
        assert picture.size[0] > 500
