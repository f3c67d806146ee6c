"""The blocks of a model: what is gathered at a time, and what is computed again in place of being kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from dlsys.errors import UsageError
from dlsys.spec.card import Card


def checkpoint_activations(model: nn.Module, card: Card | None) -> None:
    """Keeps of each of the innermost blocks only what goes in; backward computes the rest again.

    Raises:
        UsageError: there are no blocks.
    """
    blocks = blocks_of(model, card)
    innermost = [b for b in blocks if not any(inner in blocks for inner in b.modules() if inner is not b)]
    if not innermost:
        raise UsageError(
            f"activation_checkpointing: {type(model).__name__} has no blocks, which are its children with "
            "parameters of their own: leave it out"
        )
    for block in innermost:
        _checkpoint(block)


def blocks_of(model: nn.Module, card: Card | None) -> list[nn.Module]:
    """The modules that are gathered one at a time, inner ones first.

    They are those on the card or, without names, the model's children; besides, the members of every
    `ModuleList`, which is where models keep layers of a kind. Modules that share a parameter with
    another stay with the root.
    """
    chosen = {model.get_submodule(name) for name in (card.blocks if card else ())} or set(model.children())
    containers = {module for module in model.modules() if isinstance(module, nn.ModuleList | nn.ModuleDict)}
    chosen |= {member for container in containers for member in container.children()}
    blocks = [module for module in reversed(list(model.modules())) if module in chosen - containers]
    owners: dict[nn.Parameter, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter, set()).add(name)
    return [
        block
        for block in blocks
        if (parameters := set(block.parameters())) and all(len(owners[p]) == 1 for p in parameters)
    ]


def _checkpoint(block: nn.Module) -> None:
    """Makes backward compute a block's activations again (Chen et al. 2016, arXiv:1604.06174)."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(block)

    # A wrapper module would change the parameters' names.
    block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=contexts)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second forward pass of a batch must not enter running statistics again."""
    norms = [module for module in block.modules() if isinstance(module, _NormBase)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
