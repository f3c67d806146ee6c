"""Kronecker-factored curvature (K-FAC; Martens & Grosse 2015): https://arxiv.org/abs/1503.05671

The Fisher information matrix of a layer is taken to be A ⊗ G: A is the second moment of what comes in (with a
one for the bias), G that of the gradients of the log-likelihood of drawn outputs, by what goes out. A
convolution is such a layer at each place of the image (Grosse & Martens 2016, https://arxiv.org/abs/1602.01407).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from dlsys.rl.networks import Linears

Layer = nn.Linear | Linears | nn.Conv2d
_LEAST = 1e-8


class Curvature(nn.Module):
    """Of a network's layers: running averages of the factors, as buffers.

    Args:
        network: of `nn.Linear`, `Linears` and `nn.Conv2d`, all with a bias.
        decay: of the averages.
        damping: λ, added to the diagonal of A ⊗ G.
    """

    steps: Tensor

    def __init__(self, network: nn.Module, decay: float, damping: float) -> None:
        super().__init__()
        self._decay, self._damping = decay, damping
        self._layers: dict[str, Layer] = {
            name: layer
            for name, layer in network.named_modules()
            if isinstance(layer, nn.Linear | Linears | nn.Conv2d)
        }
        for name, layer in self._layers.items():
            count, outputs, inputs = _matrix(layer, layer.weight, _bias(layer)).shape
            self.register_buffer(_key(name, "A"), torch.zeros(count, inputs, inputs))
            self.register_buffer(_key(name, "G"), torch.zeros(count, outputs, outputs))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        """A [E, inputs + 1, inputs + 1] and G [E, outputs, outputs] of a layer; E is 1 but for `Linears`."""
        return self.get_buffer(_key(name, "A")), self.get_buffer(_key(name, "G"))

    @contextmanager
    def watching(self) -> Iterator[Callable[[Tensor], None]]:
        """Within it, what comes into the layers and goes out is kept. What it gives takes the sum of the
        log-likelihoods of outputs that were drawn for N rows, and moves the averages."""
        kept: dict[str, tuple[Tensor, Tensor]] = {}

        def keeping(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
            def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                kept[name] = inputs[0].detach(), output

            return keep

        hooks = [layer.register_forward_hook(keeping(name)) for name, layer in self._layers.items()]
        try:
            yield lambda likelihood: self._move(kept, likelihood)
        finally:
            for hook in hooks:
                hook.remove()

    def _move(self, kept: dict[str, tuple[Tensor, Tensor]], likelihood: Tensor) -> None:
        gradients = torch.autograd.grad(likelihood, [out for _, out in kept.values()], retain_graph=True)
        self.steps += 1
        # So that the first ones count as much as later ones.
        share = max(1 / int(self.steps), 1 - self._decay)
        for (name, (inputs, _)), gradient in zip(kept.items(), gradients, strict=True):
            into, out, count = _rows(self._layers[name], inputs, gradient)
            a, g = self.factors(name)
            a.lerp_(into.mT @ into / count, share)
            g.lerp_(out.mT @ out / out.shape[1], share)

    @torch.no_grad()
    def natural(self) -> None:
        """Makes natural gradients (A ⊗ G + λ)⁻¹ ∇ of all layers' gradients, in place.

        The damping is shared between the factors by their mean eigenvalues (section 6.3 of the paper).
        """
        for name, layer in self._layers.items():
            bias = _bias(layer)
            if layer.weight.grad is None or bias.grad is None:
                continue
            a, g = self.factors(name)
            sizes = [each.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=_LEAST) for each in (a, g)]
            ratio = (sizes[0] / sizes[1]).sqrt()[:, None, None]
            a = a + _identity(a) * (ratio * self._damping**0.5)
            g = g + _identity(g) * (self._damping**0.5 / ratio)
            found = _matrix(layer, layer.weight.grad, bias.grad)
            found = torch.linalg.solve(a, torch.linalg.solve(g, found), left=False)
            weight = found[..., :-1]
            if isinstance(layer, Linears):
                weight = weight.mT
            layer.weight.grad.copy_(weight.reshape(layer.weight.shape))
            bias.grad.copy_(found[..., -1].reshape(bias.shape))


def _key(name: str, factor: str) -> str:
    """A buffer's name, which may have no dot."""
    return f"{name.replace('.', '/')}/{factor}"


def _identity(of: Tensor) -> Tensor:
    return torch.eye(of.shape[-1], device=of.device)


def _bias(layer: Layer) -> nn.Parameter:
    assert isinstance(layer.bias, nn.Parameter)
    return layer.bias


def _matrix(layer: Layer, weight: Tensor, bias: Tensor) -> Tensor:
    """Weights and biases, or their gradients, as [E, outputs, inputs + 1]."""
    if isinstance(layer, Linears):
        return torch.cat([weight.mT, bias.mT], -1)
    return torch.cat([weight.flatten(1), bias.unsqueeze(-1)], -1).unsqueeze(0)


def _rows(layer: Layer, inputs: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, int]:
    """What came in, with a one [E, R, inputs + 1], gradients of what went out [E, R, outputs], and how many
    observations that is: a convolution has a row for each place of one."""
    if isinstance(layer, Linears):
        into, out, count = inputs, gradient, inputs.shape[1]
    elif isinstance(layer, nn.Linear):
        into, out, count = inputs.unsqueeze(0), gradient.unsqueeze(0), len(inputs)
    else:
        assert not isinstance(layer.padding, str)
        patches = unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        into = patches.mT.flatten(0, 1).unsqueeze(0)
        out, count = gradient.flatten(2).mT.flatten(0, 1).unsqueeze(0), len(inputs)
    return torch.cat([into, torch.ones(*into.shape[:2], 1, device=into.device)], -1), out, count
