"""Names that a job file may use, and the lazy `module:attr` strings behind them.

One class, and explicit tables: importing dlsys runs nobody's registration code. Installed
packages add workloads of their own, whose catalogue is `dlsys.spec.catalogue`'s, and sources of data, through
entry points in the groups `dlsys.workloads` and `dlsys.sources`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from dlsys.errors import UsageError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` with the nearest known name, or an empty string."""
    spelled = {text.lower(): text for text in known}
    near = difflib.get_close_matches(str(name).lower(), list(spelled), n=1, cutoff=0.6)
    return f" Did you mean {spelled[near[0]]!r}?" if near else ""


# So many names are read at a glance; of more, a message tells those that are like the one given.
_FEW = 8
_NEAREST = 5


def known(name: str, names: Iterable[str], *, more: str = "") -> str:
    """What a message about an unknown name ends with: what was probably meant, and what there is.

    Args:
        name: the unknown one.
        names: all that there are, in the order in which a few of them are told.
        more: how to see all of many, such as a command.
    """
    every = list(names)
    text = did_you_mean(name, every)
    if len(every) <= _FEW:
        return f"{text} Known: {', '.join(every) or 'none'}"
    text += f" Nearest: {', '.join(like(name, every)[:_NEAREST])}"
    return f"{text}. More of {len(every)}: {more}" if more else f"{text} and {len(every) - _NEAREST} more"


def like(name: str, names: Iterable[str]) -> list[str]:
    """The names, those most like `name` first: that hold it or its parts, then by their letters."""

    def distance(other: str) -> tuple[bool, float, str]:
        a, b = str(name).lower(), other.lower()
        return a not in b, -difflib.SequenceMatcher(a=a, b=b).ratio(), other

    return sorted(names, key=distance)


def import_string(target: str) -> Any:
    """The object behind `package.module:attribute`.

    Raises:
        ImportError: no such module.
        AttributeError: the module has no such attribute.
    """
    module, _, attribute = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


class Registry:
    """A table of names of one kind.

    Args:
        kind: what the names stand for, as messages say it (`workload`).
        table: name to `module:attr`.
        group: of entry points, through which other packages may add names.
    """

    def __init__(self, kind: str, table: Mapping[str, str], *, group: str = "") -> None:
        self.kind, self._group = kind, group
        self.own = dict(table)

    @cached_property
    def _table(self) -> dict[str, str]:
        extra = entry_points(group=self._group) if self._group else ()
        return {**{point.name: point.value for point in extra}, **self.own}

    def names(self) -> list[str]:
        return sorted(self._table)

    def __contains__(self, name: object) -> bool:
        # Ours first: reading other packages' entry points takes longer than most commands.
        return name in self.own or name in self._table

    def target(self, name: str) -> str:
        """The `module:attr` behind a name.

        Raises:
            UsageError: unknown name; the message tells the nearest ones.
        """
        found = self.own.get(name) or self._table.get(name)
        if found is None:
            raise UsageError(self.unknown(name))
        return found

    def load(self, name: str) -> Any:
        return import_string(self.target(name))

    def unknown(self, name: str) -> str:
        return f"unknown {self.kind} {name!r}.{known(name, self.names())}"


# A source's name stands for a function from its options to a `dlsys.data.Splits`.
SOURCES = Registry(
    "data source",
    {
        "digits": "dlsys.data.images.digits:digits",
        "breast_cancer": "dlsys.data.features.breast_cancer:breast_cancer",
        "pydoc": "dlsys.data.text.pydoc:pydoc",
        "text": "dlsys.data.text.text_file:text_file",
        "texts": "dlsys.data.text.labelled:labelled_texts",
        "csv": "dlsys.data.features.files:csv_file",
        "parquet": "dlsys.data.features.files:parquet_file",
        "arrow": "dlsys.data.features.files:arrow_file",
        "jsonl": "dlsys.data.features.files:json_lines",
        "idx": "dlsys.data.images.idx:idx_files",
        "cifar": "dlsys.data.images.cifar:cifar_files",
        "image-folder": "dlsys.data.images.image_folder:image_folder",
        "coco": "dlsys.data.images.coco:coco",
        "voc": "dlsys.data.images.voc:voc",
        "kitti": "dlsys.data.images.kitti:kitti",
        "shapes": "dlsys.data.images.shapes:shapes",
        "textures": "dlsys.data.images.textures:textures",
        "shapes-and-textures": "dlsys.data.images.shapes_and_textures:shapes_and_textures",
        "frame-folders": "dlsys.data.clips.frame_folders:frame_folders",
        "moving-shapes": "dlsys.data.clips.moving_shapes:moving_shapes",
        "mask-folder": "dlsys.data.images.mask_folder:mask_folder",
        "ellipsoids": "dlsys.data.volumes.ellipsoids:ellipsoids",
        "nifti": "dlsys.data.volumes.nifti:nifti",
        "scans": "dlsys.data.scans.rendered:scans",
        "semantic-kitti": "dlsys.data.scans.kitti:semantic_kitti",
        "synthetic-faces": "dlsys.data.images.synthetic_faces:synthetic_faces",
        "comparisons": "dlsys.data.comparisons.comparisons:comparisons",
        "synthetic-ctr": "dlsys.data.clicks.synthetic_ctr:ctr",
        "gaussian-ring": "dlsys.data.points.gaussian_ring:gaussian_ring",
        "piecewise": "dlsys.data.features.piecewise:piecewise",
        "module:function": "dlsys.data.own.source:own_source",
    },
    group="dlsys.sources",
)

STRATEGIES = Registry(
    "strategy",
    {
        "single": "dlsys.train.strategies.single:SingleStrategy",
        "ddp": "dlsys.train.strategies.ddp:DDPStrategy",
        "ring": "dlsys.train.strategies.ring:RingStrategy",
        "ps": "dlsys.train.strategies.ps:PSStrategy",
        "fsdp": "dlsys.train.strategies.fsdp:FSDPStrategy",
        "zero": "dlsys.train.strategies.zero:ZeroStrategy",
        "pipeline": "dlsys.train.strategies.pipeline:PipelineStrategy",
        "tensor": "dlsys.train.strategies.tensor:TensorStrategy",
        "moe": "dlsys.train.strategies.moe:MoEStrategy",
    },
)

# An algorithm's name stands for a function from its options to RLlib's configuration, or for an agent of
# our own.
ALGORITHMS = Registry(
    "algorithm",
    {
        "ppo": "dlsys.rl.algorithms.ppo:PPOAgent",
        "trpo": "dlsys.rl.algorithms.trpo:TRPOAgent",
        "reinforce": "dlsys.rl.algorithms.reinforce:REINFORCEAgent",
        "a2c": "dlsys.rl.algorithms.a2c:A2CAgent",
        "a3c": "dlsys.rl.algorithms.a3c:A3CAgent",
        "acktr": "dlsys.rl.algorithms.acktr:ACKTRAgent",
        "impala": "dlsys.rl.algorithms.rllib_async:impala",
        "appo": "dlsys.rl.algorithms.rllib_async:appo",
        "value-iteration": "dlsys.rl.tabular.agent:of_job",
        "q-value-iteration": "dlsys.rl.tabular.agent:of_job",
        "td-learning": "dlsys.rl.tabular.agent:of_job",
        "q-learning": "dlsys.rl.tabular.agent:of_job",
        "dqn": "dlsys.rl.algorithms.dqn:DQNAgent",
        "rainbow": "dlsys.rl.algorithms.dqn:DQNAgent",
        "sac": "dlsys.rl.algorithms.sac:SACAgent",
        "ddpg": "dlsys.rl.algorithms.ddpg:DDPGAgent",
        "td3": "dlsys.rl.algorithms.ddpg:DDPGAgent",
        "mbpo": "dlsys.rl.algorithms.mbpo:MBPOAgent",
        "mpc": "dlsys.rl.algorithms.mpc:MPCAgent",
        "dreamerv3": "dlsys.rl.algorithms.dreamerv3:dreamerv3",
        "genetic": "dlsys.rl.algorithms.genetic:GeneticAgent",
        "mcts": "dlsys.rl.algorithms.mcts:MCTSAgent",
        "alphago": "dlsys.rl.algorithms.alphago:AlphaGoAgent",
        "alphazero": "dlsys.rl.algorithms.alphazero:AlphaZeroAgent",
        "muzero": "dlsys.rl.algorithms.muzero:MuZeroAgent",
        "bc": "dlsys.rl.algorithms.bc:BCAgent",
        "marwil": "dlsys.rl.algorithms.marwil:MARWILAgent",
        "iql": "dlsys.rl.algorithms.iql:IQLAgent",
        "cql": "dlsys.rl.algorithms.cql:CQLAgent",
    },
)
