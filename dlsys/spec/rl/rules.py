"""Rules between the sections of a `kind: rl` job, and against the environment that it names.

gymnasium's own environments are made to be asked what they show and take; a user's environment is
looked for and not run, since its file may import anything, and a simulator may be elsewhere: what they
take is held against the algorithm when the run starts.
"""

from __future__ import annotations

from dlsys.errors import DlsysError
from dlsys.spec.metrics import metric_exists
from dlsys.spec.names import wrong_name
from dlsys.spec.own_code import own_code
from dlsys.spec.rl import families
from dlsys.spec.rl.external import EXTERNAL, wrong_options
from dlsys.spec.rl.job import PLAYED, RLJob
from dlsys.spec.rl.models import DreamerV3
from dlsys.spec.rl.offline import Offline
from dlsys.spec.rl.value import DQN, Replayed
from dlsys.spec.rules import Found, Rules, experiment_is_plain, init_is_one, stop_is_given
from dlsys.spec.section import show

# gymnasium's wrappers with running statistics.
_UNSHARED = ("NormalizeObservation", "NormalizeReward")

_RULES: Rules[RLJob] = Rules()


check = _RULES.check


@_RULES.on("stop")
def _ends(job: RLJob) -> Found:
    yield from stop_is_given(job.stop)


@_RULES.on("tracking")
def _experiment_is_plain(job: RLJob) -> Found:
    yield from experiment_is_plain(job.tracking)


@_RULES.on("environment")
def _environment_exists(job: RLJob) -> Found:
    told = job.environment
    if ":" in told.name:
        yield from own_code(told.name, ("environment", "name"))
    if told.name == EXTERNAL:
        yield from ((("environment", "options", *path), text) for path, text in wrong_options(told.options))
    for index, wrapper in enumerate(told.wrappers):
        if why := _unfit(wrapper.name):
            yield ("environment", "wrappers", index, "name"), why
        elif ":" in wrapper.name:
            yield from own_code(wrapper.name, ("environment", "wrappers", index, "name"))


@_RULES.on("environment", "algorithm")
def _frames_are_seen(job: RLJob) -> Found:
    if job.environment.frames and job.algorithm.PLANS:
        name = job.algorithm.name
        yield ("environment", "frames"), f"{name} plans with the environment's own states: leave it out"


@_RULES.on("environment")
def _metrics_have_names(job: RLJob) -> Found:
    for name in job.environment.metrics:
        path = ("environment", "metrics", name)
        if name in PLAYED:
            yield path, f"is measured of every episode anyway: {', '.join(PLAYED)}"
        elif wrong := wrong_name(name):
            yield path, f"{show(name)} {wrong}"


@_RULES.on("episodes", "algorithm")
def _has_chances(job: RLJob) -> Found:
    if job.episodes.explore and not job.algorithm.CHANCES:
        yield (
            ("episodes", "explore"),
            f"{job.algorithm.name} has no chances of actions to draw from, it takes the best: leave it out",
        )


@_RULES.on("failure", "checkpoint")
def _nothing_elastic(job: RLJob) -> Found:
    if job.failure.elastic is not None:
        yield (
            ("failure", "elastic"),
            "is for workers that train together: lost env runners start again anyway",
        )


@_RULES.on("init", "algorithm")
def _begins_with_weights(job: RLJob) -> Found:
    yield from init_is_one(job.init)
    if job.init and not job.algorithm.OWN:
        yield ("init",), f"{job.algorithm.name} cannot begin with weights: leave it out"


@_RULES.on("failure", "algorithm")
def _environments_are_renewed(job: RLJob) -> Found:
    if job.failure.environment != "renew":
        return
    path, name = ("failure", "environment"), job.algorithm.name
    if isinstance(job.algorithm, Offline):
        yield path, f"{name} learns without the environment, and evaluations renew none: leave it out"
    elif not job.algorithm.OWN:
        yield path, f"{name} ends where an environment raises: leave it out"


@_RULES.on("algorithm", "resources")
def _runners_suit_algorithm(job: RLJob) -> Found:
    name = getattr(job.algorithm, "name", "")
    if job.algorithm.ASYNCHRONOUS and job.resources.env_runners == 0:
        yield (
            ("resources", "env_runners"),
            f"{name} is asynchronous and needs one at least, but got 0; try 2",
        )
    if job.algorithm.WHOLE_EPISODES and job.resources.envs > 1:
        yield (
            ("resources", "envs"),
            f"{name} learns from whole episodes, and of {job.resources.envs} environments at once it would "
            "see the shortest ones most; give 1, and more env_runners",
        )


@_RULES.on("resources", "algorithm")
def _resources_are_used(job: RLJob) -> Found:
    algorithm, needs = job.algorithm, job.resources
    if not (algorithm.RLLIB or algorithm.OWN) and needs.gpus:
        yield ("resources", "gpus"), f"{algorithm.name} learns on CPUs: leave it out"
    if not algorithm.RUNNERS and needs.env_runners:
        yield ("resources", "env_runners"), f"{algorithm.name} acts in its own process: leave it out"


@_RULES.on("algorithm", "model", "normalize")
def _networks_are_ours(job: RLJob) -> Found:
    algorithm = job.algorithm
    for name in ("model", "normalize"):
        ours = algorithm.OWN and algorithm.LAYERS
        if not ours and getattr(job, name) != type(getattr(job, name))():
            yield (name,), f"{algorithm.name} has networks of its own that this does not reach: leave it out"
    if algorithm.OWN and job.model.memory and not algorithm.MEMORY:
        yield (
            ("model", "memory"),
            f"{algorithm.name} learns without a memory: leave it out, or take ppo or a2c",
        )
    if job.model.module is not None and not algorithm.MODULE:
        yield ("model", "module"), f"{algorithm.name} must know the layers: leave it out, or take a2c"
    if isinstance(algorithm, Offline) and job.normalize.reward:
        yield ("normalize", "reward"), f"{algorithm.name} takes rewards as they were recorded: leave it out"
    if job.model.module is None and job.model.options:
        yield ("model", "options"), "are those of model.module: name it, or leave them out"
    if job.model.module is not None:
        if job.model.filters:
            yield (
                ("model", "filters"),
                "are of the convolutions that model.module stands for: leave one of them out",
            )
        if ":" not in job.model.module:
            yield ("model", "module"), f"must be your own module:Class, got {job.model.module!r}"
        else:
            yield from own_code(job.model.module, ("model", "module"))


@_RULES.on("policies", "algorithm", "model")
def _groups_are_learned(job: RLJob) -> Found:
    name = job.algorithm.name
    if job.policies != "shared" and not job.algorithm.GROUPS:
        yield ("policies",), f"are of several agents, and {name} is one: leave it out, or take ppo"


@_RULES.on("stop", "expect", "checkpoint", "algorithm")
def _metrics_exist(job: RLJob) -> Found:
    for name in job.expect:
        yield from metric_exists(job, ("expect", name), name, ("train", "valid", "test"))
    for name in job.stop.target:
        yield from metric_exists(job, ("stop", "target", name), name, ("train", "valid"))
    if job.checkpoint.best is not None:
        yield from metric_exists(job, ("checkpoint", "best"), job.checkpoint.best, ("valid",))


@_RULES.on("algorithm", "resources")
def _memory_has_room(job: RLJob) -> Found:
    told, needs = job.algorithm, job.resources
    if isinstance(told, Replayed | DreamerV3):
        least = 2 * told.fragment * needs.envs * max(needs.env_runners, 1)
        if told.capacity < least:
            yield (
                ("algorithm", "capacity"),
                f"must be at least {least}, twice fragment × resources.envs × resources.env_runners, "
                f"got {told.capacity}",
            )


@_RULES.on("algorithm")
def _returns_have_a_range(job: RLJob) -> Found:
    told = job.algorithm
    if isinstance(told, DQN) and told.atoms > 1 and told.v_min >= told.v_max:
        yield (
            ("algorithm", "v_min"),
            f"must be less than v_max, got v_min {told.v_min:g} and v_max {told.v_max:g}",
        )


@_RULES.on("environment", "algorithm")
def _algorithm_suits_environment(job: RLJob) -> Found:
    told = job.environment
    if ":" in told.name or told.name == EXTERNAL:
        return
    # gymnasium takes a while to import, and nothing else here needs it.
    from dlsys.spec.rl.environments import make, unsuited

    try:
        families.prepare(told.name)
        if any(":" in wrapper.name for wrapper in told.wrappers):
            return
        yield from unsuited(job.algorithm, make(told, flat=False), told.name)
    except DlsysError as error:
        yield ("environment",), str(error)


def _unfit(wrapper: str) -> str:
    """Why a wrapper cannot be used; empty where it can."""
    if wrapper.rpartition(":")[2] not in _UNSHARED:
        return ""
    return (
        f"{wrapper} keeps statistics of its own in each environment, which are neither shared nor saved: an "
        "agent would be measured, resumed and exported with others than it learned with. Say "
        "normalize: {observation: true, reward: true} instead, or scale by fixed numbers: RescaleObservation"
    )
