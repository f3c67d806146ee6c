"""`kind: rl` — an agent, the environment it learns in, and what it may use. Validation is pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dlsys.spec.notify import Notify
from dlsys.spec.rl.algorithms import Algorithm
from dlsys.spec.section import (
    Bool,
    Bound,
    Count,
    Every,
    Interval,
    Name,
    NonNegativeInt,
    Number,
    Seconds,
    Section,
    Text,
)
from dlsys.spec.train.initial import Init
from dlsys.spec.train.job import Checkpoint, Failure, Store, TrainJob, amounts
from dlsys.spec.yaml import Path

# What is measured of evaluation episodes, each with the value that is the best; of lengths nobody knows it.
PLAYED = {"return": "max", "return_std": "min", "return_min": "max", "length": ""}


class Wrapper(Section):
    """Changes what an agent sees of an environment."""

    name: Text
    """A class of `gymnasium.wrappers`, such as `FrameStackObservation`, or your own `module:Class`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the class is made with besides the environment."""


class Environment(Section):
    """What the agent acts in."""

    name: Text
    """A gymnasium id (`CartPole-v1`, `ALE/Pong-v5`), or your own `package.module:Class`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What it is made with: `{map_name: 8x8}`."""
    wrappers: tuple[Wrapper, ...] = ()
    """Put around it, the first one innermost."""
    frames: Annotated[Count, Field(ge=2, le=1000)] | None = None
    """How many of the last observations are shown at once, after all wrappers: as further colors of an image,
    or as one vector, the newest last."""
    metrics: dict[Text, Literal["max", "min"]] = Field(default_factory=dict)
    """Numbers that the environment tells in `info` at an episode's last step, measured of evaluation episodes
    besides the return, and whether more is better: `{success: max, distance: min}`."""
    max_steps: Count | None = None
    """Cuts episodes that are longer; by default as the environment says."""


class Normalize(Section):
    """What is standardized while an agent learns. The figures it takes are saved and exported with the agent,
    and evaluation changes none of them; returns are told in the environment's own unit."""

    observation: Bool = False
    """Numbers that are seen, by the mean and the deviation of all seen so far. Images are not."""
    reward: Bool = False
    """Rewards, by the deviation of the discounted returns so far."""


class Model(Section):
    """The agent's networks, besides the widths that `algorithm` says."""

    module: Text | None = None
    """Your own `module:Class`, a torch.nn.Module that makes features [N, F] of what is seen: it is made with
    the shapes by name and with `options`, and called with tensors by name: `numbers` [N, O], images [N,
    height, width, channels]. Without it, images go through convolutions."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What your class is made with besides."""
    filters: tuple[tuple[Count, Count, Count], ...] = ()
    """The convolutions that images go through: [channels, side, stride] of each. By default they are halved
    until few numbers are left."""
    memory: Literal["lstm", "gru"] | None = None
    """Remembers what was seen earlier in an episode."""
    units: Count = 64
    """Of that memory."""
    sequence: Count = 32
    """Steps of an episode through which it learns at once."""


class RLResources(Section):
    """What the agent needs of a machine or a cluster."""

    env_runners: Annotated[NonNegativeInt, Field(le=10_000)] = 0
    """Processes that step environments; with none, the learner does it itself."""
    envs: Annotated[Count, Field(le=10_000)] = 1
    """Environments that each of them steps at once."""
    cpus: Annotated[Number, Field(gt=0, le=4096)] = 1
    """CPU cores of the learner, and of each env runner."""
    gpus: Annotated[Number, Field(ge=0, le=64)] = 0
    """GPUs of the learner; a part of one is allowed. Env runners act on CPUs."""
    apart: Bool = False
    """Whether the learner has cores of its own besides the env runners'. They take turns in most
    algorithms, and then it would leave them idle; in asynchronous ones both work at the same time."""

    @property
    def workers(self) -> int:
        """The process that learns."""
        return 1

    @property
    def launcher(self) -> Literal["actors"]:
        """As of a training job: Ray Train knows no env runners."""
        return "actors"

    @property
    def bundles(self) -> list[dict[str, float]]:
        """What each process needs, as Ray calls it; the learner's first."""
        own = self.apart or not self.env_runners
        # RLlib wants a bundle for the learner in any case, and Ray wants something in it.
        learner = amounts(self.cpus if own else 0, self.gpus) or {"memory": 1.0}
        return [learner, *[amounts(self.cpus, 0)] * self.env_runners]

    def described(self, what: str) -> str:
        """How much of `CPUs` or `GPUs` all of it takes, for messages."""
        if what == "GPUs":
            return f"a learner × {self.gpus:g} GPUs"
        learner = "a learner and " if self.apart or not self.env_runners else ""
        return f"{learner}{self.env_runners} env runners × {self.cpus:g} CPUs"


class RLFailure(Failure):
    """What happens when something fails."""

    environment: Literal["end", "renew"] = "end"
    """When an environment raises while an agent learns: ends the run with the lines of your code, or makes it
    anew, cuts its episode there and counts that in `train/renewed`. One that raises three times without a
    step between ends the run in any case, and so does one that raises in an evaluation."""


class RLStop(Section):
    """The run ends as soon as one of these holds; at least one bound must be given."""

    epochs: Count | None = None
    """Iterations of the algorithm: each samples and learns once."""
    steps: Count | None = None
    """Steps of the environment, over all env runners."""
    time: Seconds | None = None
    """Wall time of training, resumed runs counted in: `90 s`, `10 minutes`."""
    target: dict[str, Bound] = Field(default_factory=dict)
    """Metrics that are good enough: `{valid/return: ">= 475"}`; all of them must hold."""


class Episodes(Section):
    """The episodes that evaluate the agent; they are never learned from."""

    valid: Count = 20
    """At each evaluation."""
    test: Count = 100
    """At the end of the run, from other starts."""
    explore: Bool = False
    """Whether actions are drawn from the policy's chances, as in training, not the best known ones taken."""


Agents = Annotated[tuple[Text, ...], Field(min_length=1, strict=False)]


class RLJob(Section):
    """One agent's training."""

    # As of a training job, all that is written in capitals.
    FIXED: ClassVar[tuple[str, ...]] = (
        "kind",
        "name",
        "environment",
        "algorithm",
        "model",
        "normalize",
        "policies",
        "seed",
    )
    ENGINE: ClassVar[str] = "dlsys.rl.engine:run_agent"
    # What is measured while it trains, as `train/…`.
    learns: ClassVar[tuple[str, ...]] = ("return", "length")

    kind: Literal["rl"]
    """What sort of file this is."""
    name: Name
    """What the run is called; run ids start with it."""
    environment: Environment
    """What the agent acts in."""
    algorithm: Algorithm
    """How it learns."""
    model: Model = Field(default_factory=Model)
    """Its networks."""
    normalize: Normalize = Field(default_factory=Normalize)
    """What is standardized."""
    policies: Literal["shared", "separate"] | dict[Name, Agents] = "shared"
    """Where an environment has several agents: one policy for all of them, one for each, or by its name one
    for those that match one of its patterns: `{walkers: [walker_*], ball: [ball]}`."""
    init: Init | None = None
    """Begins with the policy of another run, or of a file."""
    resources: RLResources = Field(default_factory=RLResources)
    """Env runners and what each process needs."""
    stop: RLStop
    """When the run ends."""
    evaluate: Every = Interval(10, "epoch")
    """How often evaluation episodes are played, in iterations (`10 epochs`) or in steps of the
    environment (`5000 steps`); at the end of a run they always are."""
    episodes: Episodes = Field(default_factory=Episodes)
    """How many episodes evaluate the agent, and how."""
    checkpoint: Checkpoint = Field(default_factory=lambda: Checkpoint(every=Interval(50, "epoch")))
    """When the whole state of training is saved; environments start new episodes there."""
    failure: RLFailure = Field(default_factory=RLFailure)
    """Retries and hangs."""
    tracking: Store = Field(default_factory=Store)
    """The MLflow experiment and server."""
    notify: Notify | None = None
    """Who is told when the run has ended; by default whom DLSYS_NOTIFY says."""
    seed: Annotated[NonNegativeInt, Field(lt=2**32)] = 0
    """Decides initial weights, exploration, and the starts of episodes."""
    expect: dict[str, Bound] = Field(default_factory=dict)
    """What the result must meet; a run that falls short ends with exit code 1."""

    @property
    def needs_ray(self) -> bool:
        """Whether even one process needs it: RLlib does, agents of our own do not."""
        return self.algorithm.RLLIB or self.resources.env_runners > 0

    @property
    def learner(self) -> str:
        """Whose metrics are measured, for messages."""
        return self.algorithm.name

    @property
    def subject(self) -> dict[str, str]:
        """What the job is about, by what it is."""
        return {"algorithm": self.algorithm.name, "environment": self.environment.name}

    @property
    def code(self) -> Mapping[Path, str]:
        """What may name the user's own code, by its path in the file."""
        wrappers = self.environment.wrappers
        return {
            ("environment", "name"): self.environment.name,
            **{("environment", "wrappers", i, "name"): each.name for i, each in enumerate(wrappers)},
            **({("model", "module"): self.model.module} if self.model.module else {}),
        }

    @property
    def options(self) -> tuple[dict[str, Any], ...]:
        """Where the user's files may be named, besides the code."""
        return self.environment.options, self.algorithm.model_dump(), self.model.options

    @property
    def paced(self) -> Mapping[str, str]:
        """As of a training job: no schedule sets anything."""
        return {}

    def modes(self) -> Mapping[str, str] | None:
        """What evaluation episodes tell, each with `max` or `min` where one of them is the best.

        Of undiscounted returns the mean, the deviation and the least, the mean length, and the means of what
        the environment tells.
        """
        return {**PLAYED, **self.environment.metrics}

    def shows(self, metric: str) -> bool:
        """Whether a person sees this metric while the run goes on."""
        return metric.startswith("train/return") or metric == "valid/return"

    def came(self, epochs: float) -> str:
        """How far it is, in words."""
        return f"iteration {epochs:.0f}"

    @property
    def servers(self) -> None:
        """As of a training job: agents have no parameter servers."""

    @property
    def alike(self) -> bool:
        """As of a training job: there is one learner."""
        return True

    @property
    def described(self) -> str:
        """What takes memory, for messages."""
        return f"{self.algorithm.name} in {self.environment.name}"


Job = TrainJob | RLJob
