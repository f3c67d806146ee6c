#!/usr/bin/env bash
# OpenCV 5's wheels have no classical detectors any more, and still say where their files are.
#
# Versions: opencv-python-headless 5.0.0.93 and 4.12.0.88, Python 3.11. Seen on 2026-12-01.
# Guess:    a new major version renames things and drops what was marked for it. Histograms of oriented gradients, Haar
#           cascades, k-nearest neighbours, support vector machines, AKAZE: what every course on computer vision begins
#           with is there, at least under another name, and a wheel that tells the folder of the trained cascades has
#           some in it.
# Seen:     HOGDescriptor, CascadeClassifier, groupRectangles, ml, AKAZE, KAZE, BRISK and the bag-of-words trainer are
#           not in these wheels. cv2.data.haarcascades still names a folder; it holds not one cascade.
#           `opencv-python-headless>=4` in a requirements file brings this version.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cat > "$folder/told.py" <<'PYTHON'
import glob
import os
import sys

import cv2

NAMES = (
    *("HOGDescriptor", "CascadeClassifier", "groupRectangles", "ml"),
    *("AKAZE_create", "KAZE_create", "BRISK_create", "BOWKMeansTrainer"),
)
missing = [name for name in NAMES if not hasattr(cv2, name)]
there = [name for name in ("SIFT_create", "ORB_create", "FaceDetectorYN", "QRCodeDetector") if hasattr(cv2, name)]
cascades = len(glob.glob(os.path.join(cv2.data.haarcascades, "*.xml")))
print(f"{cv2.__version__}: without {', '.join(missing) or 'nothing'}; with {', '.join(there)}; {cascades} cascades")
assert len(there) == 4
if sys.argv[1] == "5":
    assert missing == list(NAMES), "otherwise now"
    assert cascades == 0
else:
    assert not missing
    assert cascades > 10
PYTHON
for version in 4.12.0.88 5.0.0.93; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet "opencv-python-headless==$version"
  "$folder/$version/bin/python" "$folder/told.py" "${version%%.*}"
done
