#!/usr/bin/env bash
# Two spaces of gymnasium's that are equal make different vectors of one observation.
#
# Versions: gymnasium 1.2.3, numpy 2.3.5, Python 3.11. Seen on 2026-11-30.
# Guess:    a Dict space has its parts in the order in which they were written, as Python's dictionaries have; or in
#           an order of its own, the same for all spaces that are equal.
# Seen:     of a dictionary the parts are sorted by name, of an OrderedDict or a list of pairs they stay as they were
#           written. Both spaces are equal, each contains the other's elements, and flatten() puts the numbers of one
#           observation in another order: a policy that was trained on the one acts on exchanged numbers in the other.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gymnasium==1.2.3 numpy==2.3.5
cat > "$folder/orders.py" <<'PYTHON'
from collections import OrderedDict

import numpy as np
from gymnasium import spaces

parts = {"speed": spaces.Box(-9, 9, (1,)), "angle": spaces.Box(-9, 9, (1,))}
plain, ordered, pairs = spaces.Dict(parts), spaces.Dict(OrderedDict(parts)), spaces.Dict(list(parts.items()))
seen = {"speed": np.array([3.0], np.float32), "angle": np.array([1.0], np.float32)}
vectors = [spaces.flatten(each, seen).tolist() for each in (plain, ordered, pairs)]
print("equal:", plain == ordered == pairs, " order of a dictionary:", list(plain), " vectors:", vectors)
assert plain == ordered == pairs and plain.contains(seen) and ordered.contains(seen), "otherwise now"
assert vectors == [[1.0, 3.0], [3.0, 1.0], [3.0, 1.0]], "otherwise now"
PYTHON
"$folder/venv/bin/python" "$folder/orders.py"
