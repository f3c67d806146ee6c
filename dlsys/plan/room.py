"""Whether work finds room on nodes: a pure question about amounts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Bundle = dict[str, float]
"""What a process needs or a node has, as Ray calls it: `{"CPU": 1.0, "GPU": 0.5}`."""

# Sums of fractions: three thirds of a CPU fit into one.
_NEAR = 1e-6


def fits(bundles: Iterable[Bundle], nodes: Sequence[Bundle]) -> bool:
    """Whether all bundles find room, each on one node: the largest first, where there is least left."""
    room = [dict(node) for node in nodes]
    for bundle in sorted(bundles, key=_size, reverse=True):
        able = [left for left in room if all(left.get(k, 0.0) + _NEAR >= v for k, v in bundle.items())]
        if not able:
            return False
        chosen = min(able, key=_size)
        for key, value in bundle.items():
            chosen[key] = chosen.get(key, 0.0) - value
    return True


def _size(bundle: Bundle) -> tuple[float, float]:
    return (bundle.get("GPU", 0.0), bundle.get("CPU", 0.0))
