#!/usr/bin/env bash
# torchmetrics takes scores for logits when any number of the batch is not from 0 to 1: one set of scores in
# two batches gives another AUROC than in one.
#
# Versions: torchmetrics 1.9.0, torch 2.13.0 (CPU build), Python 3.11. Seen on 2026-11-30.
# Guess:    a metric whose state is a sum of counts is the same however rows are cut into batches, or shared by
#           workers: that is what such a state is for.
# Seen:     scores that happen to lie from 0 to 1 in one batch are taken for probabilities there, and in the other
#           batch for logits; the binned AUROC of both is 0, and that of all rows in one batch 0.75.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy torchmetrics==1.9.0
cat > "$folder/batches.py" <<'PYTHON'
import torch
from torchmetrics.classification import BinaryAUROC

# Logits of a model: the first four rows' happen to lie from 0 to 1.
scores = torch.tensor([0.30, 0.35, 0.40, 0.45, 0.10, 0.20, 0.25, 4.0])
labels = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0])


def measured(*batches):
    metric = BinaryAUROC(thresholds=100)
    for rows in batches:
        metric.update(scores[rows], labels[rows])
    return float(metric.compute())


whole, parts = measured(slice(0, 8)), measured(slice(0, 4), slice(4, 8))
print("all rows in one batch:", whole)
print("the same rows in two: ", parts)
assert whole == 0.75
assert parts < 0.1, "the same now"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/batches.py"
