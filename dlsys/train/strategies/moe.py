"""Expert parallelism: experts are dealt out to workers (Lepikhin et al. 2020, GShard, arXiv:2006.16668).

All but the experts is data parallel: every worker holds it whole and takes its own rows. Of each
mixture's experts a worker holds its part of those that its group shares. A layer sends each token to
where its experts are, and takes their results back: two all-to-alls forward, and two in backward. What
is sent depends on the gate, so that the workers first tell each other how many tokens come.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from dlsys.errors import UsageError
from dlsys.spec.train.strategy import MoE
from dlsys.train.collectives.mean import average, local
from dlsys.train.strategies.cut import CutStrategy, is_cut
from dlsys.train.strategies.phase import TrainedPhase
from dlsys.zoo.layers.experts import Experts


class MoEStrategy(CutStrategy):
    @property
    def _size(self) -> int:
        """Workers that share a set of experts."""
        options = self._parts.job.strategy
        assert isinstance(options, MoE)
        return options.size or self._parts.world.size

    def parallelize(self, model: nn.Module) -> nn.Module:
        """Deals the experts out.

        Raises:
            UsageError: there are none, or `size` does not divide them.
        """
        world, size = self._parts.world, self._size
        mixtures = {name: module for name, module in model.named_modules() if isinstance(module, Experts)}
        if not mixtures:
            raise UsageError(
                f"strategy: moe deals out the experts of mixtures, and {type(model).__name__} has none: "
                "build it with dlsys.zoo.layers.experts.MixtureOfExperts, or choose another strategy"
            )
        for name, experts in mixtures.items():
            if experts.count % size:
                raise UsageError(
                    f"strategy.size: the {experts.count} experts of {name} cannot be dealt out to {size} "
                    "workers equally: use a size that divides them"
                )
        mesh = init_device_mesh(
            world.device.type, (world.size // size, size), mesh_dim_names=("data", "expert")
        )
        self._data, self._group = mesh.get_group("data"), mesh.get_group("expert")
        for experts in mixtures.values():
            # Every worker has built the same weights: each takes its part, and none needs be sent.
            for name, weight in list(experts.named_parameters()):
                cut = distribute_tensor(weight, mesh["expert"], [Shard(0)], src_data_rank=None)
                experts.register_parameter(name, nn.Parameter(cut))
            experts.forward = partial(self._exchange, experts)  # type: ignore[method-assign]
        return model

    def _exchange(self, experts: Experts, tokens: Tensor, counts: Tensor) -> Tensor:
        """`Experts.forward`, by those of the whole group.

        Args:
            tokens: this worker's (tokens, inputs), those of the first expert first.
            counts: how many are for which expert of the whole model, int64 (experts,).
        """
        size = self._group.size()
        sent = counts.view(size, -1)  # for each worker's experts
        got = torch.empty_like(sent)  # from each worker, for this one's
        dist.all_to_all_single(got, sent.contiguous(), group=self._group)
        outgoing, incoming = sent.sum(1).tolist(), got.sum(1).tolist()
        arrived = all_to_all_single_autograd(tokens.contiguous(), incoming, outgoing, self._group)
        # They come by worker, and are computed by expert.
        held = torch.arange(got.shape[1], device=got.device).repeat(size)
        order = held.repeat_interleave(got.flatten()).argsort(stable=True)
        results = experts.compute(arrived[order], got.sum(0), *map(local, experts.weights))
        by_worker = torch.empty_like(results).index_copy(0, order, results)
        rank = self._group.rank()
        away, here = len(tokens) - outgoing[rank], len(arrived) - incoming[rank]
        inputs, outputs = tokens.shape[1], results.shape[1]
        # Forward tokens go away and results back; in backward their gradients, the other way.
        forward = away * inputs + here * outputs
        backward = away * outputs + (here * inputs if tokens.requires_grad else 0)
        counts_sent = (size - 1) / size * sent.nbytes
        self._traffic.add(sent=counts_sent + (forward + backward) * results.element_size())
        return all_to_all_single_autograd(by_worker, outgoing, incoming, self._group)

    def reduce(self, trained: TrainedPhase) -> None:
        everyone = dist.group.WORLD
        assert everyone is not None, "several workers have a process group"
        places = self._parts.world.size
        whole = [parameter for parameter in trained.parameters if not is_cut(parameter)]
        average(whole, everyone, places, self._traffic)
        # Backward has brought the whole group's part to its expert: what is left are the other groups'.
        experts = [parameter for parameter in trained.parameters if is_cut(parameter)]
        average(experts, self._data, places, self._traffic)
