"""A sweep on Ray Tune: every leg of a trial is a Tune trial on an actor that is used again.

Tune places actors, keeps them warm between legs, and tells which died. What to train comes from the
director, through Tune's `Searcher`. State travels in the trials' own checkpoints, which any actor can
take up; so pausing, promoting and cloning need nothing of Tune's, whose own checkpoints and records
would be a second truth (and pickles). Nothing of them outlives the run.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlsys.spec.rl.job import RLResources
from dlsys.spec.train.job import Resources
from dlsys.tune.director import Director, Order

# Told to Tune before it is imported.
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000000",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Users' modules and relative paths are in the working folder.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def run(
    director: Director,
    train: Callable[[dict[str, Any]], dict[str, Any]],
    folder: Path,
    *,
    prepare: Callable[[Order], tuple[dict[str, Any], Resources | RLResources]],
    concurrent: int | None,
    watch: Callable[[], bool],
) -> None:
    """Trains until the director has nothing left, or `watch` says to end.

    Args:
        train: a function of a module, called in an actor with what `prepare` gave; it answers
            `{"status": "reported" | "interrupted" | "failed", …}`.
        folder: what Tune must write is written there, and removed.
        prepare: what `train` is told of an order, and what it needs; raises DlsysError where the
            trial cannot run at all.
        concurrent: how many trials train at a time; None is as many as there is room for.
        watch: called several times a second; whether to begin nothing more.
    """
    os.environ.update(_ENVIRONMENT)
    from ray import tune
    from ray.tune.callback import Callback

    from dlsys.tune.trainable import Dealing, TrialActor, needs

    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    dealing = Dealing(director, prepare)

    class Watch(Callback):  # type: ignore[misc]
        def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
            dealing.ending = watch() or dealing.ending

    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        while not dealing.ending and not director.finished:
            # Not `Tuner`: it pickles all it is given, the director with its open files too.
            tune.run(
                tune.with_resources(tune.with_parameters(TrialActor, train=train), needs),
                search_alg=dealing,
                num_samples=-1,
                reuse_actors=True,
                max_concurrent_trials=concurrent,
                storage_path=str(folder),
                name="trials",
                verbose=0,
                callbacks=[Watch()],
                max_failures=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                raise_on_failed_trial=False,
            )
            dealing.renew()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
