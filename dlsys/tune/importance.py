"""How much each key of a sweep's space matters, told from its trials.

A random forest learns the order of the trials from their settings; a key is worth what the forest loses
when the key's settings are swapped among the trials (permutation importance, Breiman 2001,
https://doi.org/10.1023/A:1010933404324), all columns of a key together. It is measured on trials that
the forest has not seen, so that chance is not taken for importance. Functional ANOVA (Hutter et al.
2014) asks the same of a forest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from dlsys.spec.sweep import space
from dlsys.tune.axes import Key, columns
from dlsys.tune.director import Director, Report

LEAST = 10
_MOST, _FOLDS, _TREES = 2000, 5, 100


class Importance(NamedTuple):
    """Shares of the keys.

    Attributes:
        shares: by key, the largest first; together 1. Empty where nothing can be told.
        epoch: the trials were compared after so many.
        trials: how many were.
        explained: of the variance of the order of trials that the forest has not seen.
        reason: why nothing can be told, as a sentence.
    """

    shares: dict[Key, float]
    epoch: int = 0
    trials: int = 0
    explained: float = 0.0
    reason: str = ""


def importance(director: Director) -> Importance:
    """Measures it; half a second for 100 trials."""
    epoch, reports = comparable(director)
    count = len(reports)
    if count < LEAST:
        reason = f"It takes {LEAST} trials that were measured at the same epoch; here, {count} came to one."
        return Importance({}, epoch, count, reason=reason)
    import numpy as np
    from scipy.stats import rankdata
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    tree = space.parse(director.sweep.space)[0]
    draw = np.random.default_rng(0)
    if count > _MOST:
        reports = [reports[i] for i in sorted(draw.choice(count, _MOST, replace=False))]
    points = np.array([space.to_cube(tree, report.settings) for report in reports])
    # Ranks: a loss of 1e9 is the worst one, and no more; so is NaN.
    worst = math.inf if director.sweep.mode == "min" else -math.inf
    order = rankdata([worst if math.isnan(report.value) else report.value for report in reports])
    if (order == order[0]).all():
        return Importance({}, epoch, count, reason="All trials have the same value.")
    owners = columns(tree)
    groups = {key: [i for i, owner in enumerate(owners) if owner == key] for key in dict.fromkeys(owners)}
    repeats = max(5, min(50, 2000 // len(reports)))
    lost, missed = dict.fromkeys(groups, 0.0), 0.0
    for seen, unseen in KFold(_FOLDS, shuffle=True, random_state=0).split(points):
        forest = RandomForestRegressor(_TREES, min_samples_leaf=2, random_state=0).fit(
            points[seen], order[seen]
        )
        error = ((forest.predict(points[unseen]) - order[unseen]) ** 2).sum()
        missed += float(error)
        for key, group in groups.items():
            swapped = np.tile(points[unseen], (repeats, 1))
            swapped[:, group] = points[draw.integers(len(points), size=len(swapped))][:, group]
            wrong = ((forest.predict(swapped) - np.tile(order[unseen], repeats)) ** 2).sum() / repeats
            lost[key] += float(wrong - error)
    explained = 1 - missed / float(((order - order.mean()) ** 2).sum())
    gains = {key: max(0.0, value) for key, value in lost.items()}
    total = sum(gains.values())
    if explained <= 0 or total == 0:
        reason = (
            f"From {count} trials, a random forest cannot tell better than chance which settings are good."
        )
        return Importance({}, epoch, count, reason=reason)
    shares = {key: gain / total for key, gain in sorted(gains.items(), key=lambda item: -item[1])}
    return Importance(shares, epoch, count, explained)


def comparable(director: Director) -> tuple[int, list[Report]]:
    """The last epoch at which half of the trials (and no fewer than needed) were measured; their reports.

    Later ones have the best trials only, earlier ones tell less of the end. Where no epoch has so many,
    it is the one with the most.
    """
    at: dict[int, dict[int, Report]] = {}
    for report in director.history:
        at.setdefault(report.epoch, {})[report.trial] = report
    if not at:
        return 0, []
    most = max(len(reports) for reports in at.values())
    enough = min(most, max(LEAST, len({report.trial for report in director.history}) / 2))
    epoch = max(epoch for epoch, reports in at.items() if len(reports) >= enough)
    return epoch, list(at[epoch].values())
