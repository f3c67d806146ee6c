"""The two ends of Tune: where a leg is trained, and where legs come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from dlsys.errors import DlsysError
from dlsys.spec.rl.job import RLResources
from dlsys.spec.train.job import Resources
from dlsys.tune.director import Director, Order

# A trial's work in a process of Ray's: from what it is told to what it tells.
Train = Callable[[dict[str, Any]], dict[str, Any]]
# What `Train` is told of an order, and what that needs.
Prepare = Callable[[Order], tuple[dict[str, Any], Resources | RLResources]]


class TrialActor(tune.Trainable):
    """Trains one leg a step; Tune hands it the next one by `reset_config`."""

    def setup(self, config: dict[str, Any], train: Train) -> None:  # type: ignore[override]
        self._train = train
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._told = json.loads(new_config["told"])
        return True

    def step(self) -> dict[str, Any]:
        answer = self._train(self._told)
        return {"value": 0.0, "answer": json.dumps(answer), "done": True}


def needs(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What a trial takes of the cluster: all its workers at once, and nothing for their driver."""
    bundles, workers = json.loads(config["needs"])
    return tune.PlacementGroupFactory(bundles if workers == 1 else [{}, *bundles])


class Dealing(Searcher):
    """Gives Tune the director's orders, and the director what came of them.

    Attributes:
        ending: whether to begin nothing more.
    """

    def __init__(self, director: Director, prepare: Prepare) -> None:
        super().__init__(metric="value", mode="max")
        self._director, self._prepare = director, prepare
        self._orders: dict[str, Order] = {}
        self.ending = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        while not self.ending:
            order = self._director.next()
            if order is None:
                break
            try:
                told, resources = self._prepare(order)
            except DlsysError as error:
                self._director.crashed(order.trial, str(error), retry=False)
                continue
            self._orders[trial_id] = order
            return {"told": json.dumps(told), "needs": json.dumps([resources.bundles, resources.workers])}
        finished: str = Searcher.FINISHED
        return finished if self.ending or self._director.finished else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        order = self._orders.pop(trial_id, None)
        if order is None:
            return
        answer = json.loads(result["answer"]) if result and "answer" in result else None
        if answer is None:
            self._director.crashed(order.trial, "its process died without a word", retry=not self.ending)
        elif answer["status"] == "interrupted":
            self._director.given_back(order.trial)
        elif answer["status"] == "failed":
            self._director.crashed(order.trial, answer["cause"], retry=answer["retry"])
        elif order.tested:
            self._director.tested(order.trial, answer["metrics"])
        else:
            self._director.reported(
                order.trial, answer["epoch"], answer["value"], answer["seconds"], answer["metrics"]
            )

    def renew(self) -> None:
        """Tune has ended: what it still had is given back."""
        for order in self._orders.values():
            self._director.given_back(order.trial)
        self._orders.clear()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has everything."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep is rebuilt from its ledger")

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a leg reports once, at its end."""
