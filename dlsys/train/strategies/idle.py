"""What strategies share that must know which parameters a step did not use.

One worker gives such a parameter no gradient: its optimizer leaves the weight, momentum and decay
included, as they are. A mean over workers must keep to that, also where some workers have used it, which
code that looks at its rows brings about.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.train.collectives.mean import add_up
from dlsys.train.traffic import Traffic


def counted(
    used: Sequence[bool], group: dist.ProcessGroup, device: torch.device, traffic: Traffic
) -> list[int]:
    """How many workers of a group have used each of a phase's parameters."""
    counts = torch.tensor(used, dtype=torch.int32, device=device)
    add_up(counts, group, traffic)
    found: list[int] = counts.tolist()
    return found


def reached(loss: Tensor) -> set[Tensor]:
    """The leaves that backward will bring a gradient to."""
    found: set[Tensor] = set()
    waiting, seen = [loss.grad_fn], {loss.grad_fn}
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.add(leaf)
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return found


class Lockstep:
    """Refuses modules that one worker calls and another does not, where each call is a collective.

    Workers that came to different modules would send each other what is not asked for, or wait for ever.
    On CPUs alone: on a GPU, where every look waits for all that runs, the watchdog ends such a step.

    Args:
        group: the workers; None where there is one.
        mend: what to do instead.
    """

    def __init__(
        self, group: dist.ProcessGroup | None, device: torch.device, traffic: Traffic, mend: str
    ) -> None:
        self._traffic, self._mend = traffic, mend
        self._group = group if group is not None and group.size() > 1 and device.type == "cpu" else None

    def watch(self, modules: Iterable[tuple[str, nn.Module]]) -> None:
        """Meets the other workers before each call of one of these modules, by their names."""
        if self._group is not None:
            for name, module in modules:
                module.register_forward_pre_hook(partial(self._before, name), prepend=True)

    def _before(self, name: str, _module: nn.Module, _inputs: object) -> None:
        self.meet(name)

    def meet(self, name: str) -> None:
        """Returns when every worker has come to the same place.

        Raises:
            UsageError: one has come to another.
        """
        if self._group is None:
            return
        own = torch.tensor([zlib.crc32(name.encode())])
        places = torch.empty(self._group.size(), dtype=own.dtype)
        with self._traffic.sending(own.nbytes * (self._group.size() - 1)):
            dist.all_gather_single(places, own, group=self._group)
        if bool((places != own).any()):
            names: list[str] = [""] * self._group.size()
            dist.all_gather_object(names, name, group=self._group)
            told = ", ".join(f"worker {rank} came to {place}" for rank, place in enumerate(names))
            raise UsageError(
                f"strategy: every worker must use the same layers at each step, and {told}: {self._mend}"
            )
