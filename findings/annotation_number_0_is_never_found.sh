#!/usr/bin/env bash
# pycocotools takes the object with annotation id 0 for one that nobody found, whatever was detected.
#
# Versions: pycocotools 2.0.11, numpy 2.4.2, Python 3.11. Seen on 2026-12-01.
# Guess:    ids name annotations: which numbers they are, as long as no two are the same, changes no figure.
# Seen:     matches are kept as the other one's id, and an id above 0 is what says that there is a match. A file whose
#           annotations are counted from 0, as exporters write them that take a list's places for ids, loses one object,
#           and the perfect detection of it counts as wrong: of two objects, both detected perfectly, average precision
#           is 0.25 and not 1. In a large file it is one object of many, which nobody sees.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pycocotools==2.0.11 numpy==2.4.2
cat > "$folder/figures.py" <<'PYTHON'
import contextlib
import io

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def average_precision(first):
    boxes = [[0, 0, 10, 10], [40, 0, 10, 10]]
    same = {"image_id": 1, "category_id": 1}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": 1}],
            "categories": [{"id": 1}],
            "annotations": [
                {**same, "id": first + place, "bbox": box, "area": 100, "iscrowd": 0}
                for place, box in enumerate(boxes)
            ],
        }
        truth.createIndex()
        found = truth.loadRes([{**same, "bbox": box, "score": 0.9 - place / 10} for place, box in enumerate(boxes)])
        told = COCOeval(truth, found, "bbox")
        told.evaluate()
        told.accumulate()
        told.summarize()
    return round(float(told.stats[0]), 4), float(told.stats[8])


print("ids from 1: average precision and recall", average_precision(1))
print("ids from 0: average precision and recall", average_precision(0))
assert average_precision(1) == (1.0, 1.0), "otherwise now"
assert average_precision(0) == (0.2525, 0.5)
PYTHON
"$folder/venv/bin/python" "$folder/figures.py"
