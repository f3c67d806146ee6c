#!/usr/bin/env bash
# torchvision's GoogLeNet has 13.0 million parameters where its own table, and the paper's idea, say 6.6.
#
# Versions: torch 2.13.0, torchvision 0.28.0, Python 3.11. Seen on 2026-11-30.
# Guess:    models.googlenet() is the network whose weights the library offers, with random numbers in it: which weights
#           are asked for decides what the numbers are, not what the network is.
# Seen:     without weights it is built with two auxiliary classifiers, which make up half of its parameters, and while
#           it trains it gives a named tuple of three outputs; with weights they are left out, and the table counts it
#           without. Inception v3 has them either way, and its table counts them. A count that is held against the table,
#           or a loop that takes the output for logits, is right for one of the two and wrong for the other.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet --no-deps torchvision==0.28.0
"$folder/venv/bin/pip" install --quiet numpy pillow
cat > "$folder/counts.py" <<'PYTHON'
import warnings

import torch

warnings.simplefilter("ignore")
# torchvision's wheel is built for CUDA; beside a CPU's torch it wants these declared before it can be imported.
operators = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchvision import models


def told(name, **options):
    with torch.device("meta"):
        model = models.get_model(name, init_weights=False, **options)
        gives = type(model.train()(torch.empty(2, 3, 299, 299))).__name__
    table = models.get_model_weights(name).DEFAULT.meta["num_params"]
    return sum(parameter.numel() for parameter in model.parameters()), table, gives


plain, without, other = told("googlenet"), told("googlenet", aux_logits=False), told("inception_v3")
for name, (count, table, gives) in {"googlenet": plain, "without auxiliaries": without, "inception_v3": other}.items():
    print(f"{name}: {count:,} parameters, the table says {table:,}; in training it gives a {gives}")
assert plain == (13_004_888, 6_624_904, "GoogLeNetOutputs"), "otherwise now"
assert without == (6_624_904, 6_624_904, "Tensor")
assert other == (27_161_264, 27_161_264, "InceptionOutputs")
PYTHON
"$folder/venv/bin/python" "$folder/counts.py"
