#!/usr/bin/env bash
# timm's average pooling with TensorFlow's padding counts the padding in, although it is told not to.
#
# Versions: torch 2.13.0, torchvision 0.28.0, timm 1.0.31, Python 3.11. Seen on 2026-12-01.
# Guess:    create_pool2d("avg", 3, stride=2, padding="same", count_include_pad=False), as timm's NASNet builds its
#           reduction cells, gives the mean of those pixels of a window that are there, as TensorFlow's SAME has it: 1
#           everywhere for an image of ones.
# Seen:     of stride 1 it does so. Of stride 2 the image is padded with zeros first, and these count as pixels: at the
#           border the mean of ones is 2/3, in a corner 4/9. Which border that is depends on the size: of an even one the
#           last row and column, of an odd one the first too. So weights that were trained in TensorFlow see other maps at
#           the border, and a port that pools rightly cannot be held against timm's.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet --no-deps torchvision==0.28.0 timm==1.0.31
"$folder/venv/bin/pip" install --quiet numpy pillow pyyaml huggingface_hub safetensors
cat > "$folder/pools.py" <<'PYTHON'
import torch

# torchvision's wheel is built for CUDA; beside a CPU's torch it wants these declared before it can be imported.
operators = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from timm.layers import create_pool2d


def mean_of_ones(size, stride):
    pool = create_pool2d("avg", 3, stride=stride, padding="same", count_include_pad=False)
    return pool(torch.ones(1, 1, size, size))[0, 0]


for size, stride in ((8, 1), (8, 2), (7, 2)):
    found = mean_of_ones(size, stride)
    print(f"{size} x {size}, stride {stride}: first row {[round(x, 3) for x in found[0].tolist()]}, corner {found[-1, -1]:.3f}")
assert (mean_of_ones(8, 1) == 1).all()
torch.testing.assert_close(mean_of_ones(8, 2)[-1, -1], torch.tensor(4 / 9), msg="otherwise now")
assert mean_of_ones(8, 2)[0, 0] == 1
torch.testing.assert_close(mean_of_ones(7, 2)[0, 0], torch.tensor(4 / 9), msg="otherwise now")
PYTHON
"$folder/venv/bin/python" "$folder/pools.py"
