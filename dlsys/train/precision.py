"""What numbers a job computes in, and the loss scale that 16 bits of little range need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from dlsys.train.collectives.mean import local

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

# Those of torch.amp.GradScaler, and the least scale of DeepSpeed's.
_FIRST, _LEAST = 2.0**16, 1.0
_GROWTH, _BACKOFF = 2.0, 0.5
_INTERVAL = 2000


@dataclass(frozen=True)
class Precision:
    """A job's `precision:` on this worker's device.

    Attributes:
        name: as the file says it.
        device: where forward and backward passes run.
    """

    name: str
    device: torch.device

    @property
    def dtype(self) -> torch.dtype | None:
        """The autocast type of forward passes; None without autocast."""
        return _AUTOCAST.get(self.name)

    @property
    def floats(self) -> torch.dtype | None:
        """What floating-point numbers of the model and of batches become; None leaves them as they are."""
        return torch.float64 if self.name == "fp64" else None

    def autocast(self) -> torch.autocast:
        """Around forward passes; parameters and updates stay in fp32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def prepare(self, model: nn.Module) -> None:
        """Keeps in fp32 what has no kernel in fp16: LSTMs on CPUs. Autocast leaves GRUs so by itself."""
        if self.name == "fp16" and self.device.type == "cpu":
            for module in model.modules():
                if isinstance(module, nn.LSTM):
                    module.forward = partial(_in_fp32, module.forward)  # type: ignore[method-assign]

    def adopt(self, carried: Any) -> Any:
        """Carried state of a run in any precision: weights and optimizers convert what they are given, but
        this is used as it is."""
        usual = self.floats or torch.float32

        def fit(tensor: Tensor) -> Tensor:
            known = tensor.dtype in (usual, self.dtype) or not tensor.is_floating_point()
            return tensor if known else tensor.to(usual)

        return tree_map_only(Tensor, fit, carried)

    def scaler(self) -> LossScaler:
        return LossScaler(enabled=self.name == "fp16")


def _in_fp32(forward: Callable[..., Any], *inputs: Any) -> Any:
    with torch.autocast("cpu", enabled=False):
        return forward(*tree_map_only(Tensor, lambda t: t.float() if t.is_floating_point() else t, inputs))


class LossScaler:
    """Multiplies the loss, so that fp16 holds small gradients (Micikevicius et al. 2018, arXiv:1710.03740).

    The rule is `torch.amp.GradScaler`'s: a step in which a gradient overflows leaves its phase as it is
    and halves the scale; 2000 steps without double it. GradScaler itself looks at the gradients that
    one worker holds, and all must agree: here the norm of the whole gradient tells, which every strategy
    makes the same on all workers before it clips. Scales are powers of 2, and dividing by them is exact.

    Args:
        enabled: without, the scale is 1, and a gradient that is not finite is an error.

    Attributes:
        scale: of the next step's loss.
        skipped: steps so far in which some phase was left as it was.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self.scale = _FIRST if enabled else 1.0
        self.skipped = 0
        self._good = 0
        self._overflowed = False

    def scaled(self, loss: Tensor) -> Tensor:
        """A loss to take gradients of; in fp32, because 16 bits have no room for it."""
        return loss.float() * self.scale if self._enabled else loss

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divides gradients by the scale; what else changes them, as clipping does, comes behind this."""
        held = [p.grad for p in parameters if p.grad is not None]
        if self._enabled and held:
            # Of a DTensor, this worker's part: lists of both kinds have no kernel.
            torch._foreach_mul_([local(gradient) for gradient in held], 1 / self.scale)

    def overflow(self) -> bool:
        """Takes note of a gradient that is not finite; whether a smaller scale may mend it."""
        self._overflowed = self._enabled and self.scale > _LEAST
        return self._overflowed

    def update(self) -> None:
        """Sets the scale of the next step, once all phases of this one are done."""
        if not self._enabled:
            return
        if self._overflowed:
            self.scale, self._good = max(_LEAST, self.scale * _BACKOFF), 0
            self.skipped += 1
        else:
            self._good += 1
            if self._good == _INTERVAL:
                self.scale, self._good = self.scale * _GROWTH, 0
        self._overflowed = False

    def figures(self) -> dict[str, float]:
        """What is logged of it."""
        return {"gradient_scale": self.scale, "skipped_steps": float(self.skipped)} if self._enabled else {}

    def state_dict(self) -> dict[str, float]:
        """Empty where nothing is scaled."""
        return {"scale": self.scale, "good": self._good, "skipped": self.skipped} if self._enabled else {}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Goes on from a state; from none, as a run in another precision leaves it, it begins anew."""
        if self._enabled and state:
            self.scale = float(state["scale"])
            self._good, self.skipped = int(state["good"]), int(state["skipped"])
