"""Which algorithm serves which space, as `check` says: `python tests/rl/served.py > docs/spaces.md`."""

from __future__ import annotations

from typing import Any

from spaces_table import SEEN, TAKEN, UNSERVED, Both

from dlsys.spec.rl.environments import unsuited
from dlsys.spec.rl.offline import Offline
from dlsys.spec.rl.pair import algorithms
from dlsys.spec.rl.section import AlgorithmSection

_HEAD = """\
# Spaces

Which algorithm learns with which spaces of gymnasium's, as `dlsys check` says (made by
`python tests/rl/served.py > docs/spaces.md`): ● is served, everything else is refused in words. Planners, and
who searches the moves of games, need the environment's model or rules besides.
"""


def sections() -> dict[str, AlgorithmSection]:
    """One of each algorithm's, by name."""
    found = {}
    for name, kind in algorithms().items():
        more = {"episodes": "x"} if issubclass(kind, Offline) else {}
        made = kind.model_validate({"name": name, **more})
        if not (made.PLANS or made.GAMES):
            found[name] = made
    return found


def serves(algorithm: AlgorithmSection, seen: str, taken: str) -> bool:
    told = algorithm.model_copy()
    return not list(unsuited(told, Both(seen, taken), "it"))


def usual(algorithm: AlgorithmSection) -> tuple[str, str]:
    """Spaces that an algorithm serves, to ask for the other one."""
    seen = next(kind for kind in ("vector", "category") for taken in TAKEN if serves(algorithm, kind, taken))
    return seen, next(kind for kind in ("category", "bounds") if serves(algorithm, seen, kind))


def table(title: str, kinds: dict[str, Any], *, of_actions: bool) -> list[str]:
    made = sections()
    lines = [
        f"\n## {title}\n",
        f"| | {' | '.join(f'`{name}`' for name in made)} |",
        "|---" * (len(made) + 1) + "|",
    ]
    for kind, space in kinds.items():
        row = []
        for algorithm in made.values():
            seen, taken = usual(algorithm)
            pair = (seen, kind) if of_actions else (kind, taken)
            row.append("●" if serves(algorithm, *pair) else "")
        text = " ".join(str(space).split())
        lines.append(f"| {kind}: `{text if len(text) < 60 else text[:59] + '…'}` | {' | '.join(row)} |")
    return lines


def page() -> str:
    lines = [_HEAD.rstrip()]
    lines += table("Observations", {**SEEN, **UNSERVED}, of_actions=False)
    lines += table("Actions", {**TAKEN, **UNSERVED}, of_actions=True)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
