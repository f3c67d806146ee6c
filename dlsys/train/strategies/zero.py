"""ZeRO by DeepSpeed's engine (Rajbhandari et al. 2019, arXiv:1910.02054).

Every worker computes with the whole model, and keeps only its part of the optimizer's state
(stage 1), of the gradients (2) and of the parameters (3). DeepSpeed moves and cuts tensors; the
optimizer, its schedule, the share of each row and the state's form are the same as in `single`.

From stage 1 on the optimizer works on flat tensors, in which a worker's parts of all parameters lie
one after the other. A `Slice` says where; everything here that DeepSpeed has no word for (penalties,
max-norm, checkpoints of any number of workers) goes through slices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dlsys.data.loader import MicroBatch
from dlsys.errors import NonFiniteError, UsageError
from dlsys.spec.train.strategy import Zero
from dlsys.train.schedule import apply
from dlsys.train.strategies.base import Parts, State
from dlsys.train.strategies.deepspeed_process import (
    compiled_adam,
    gathered,
    hold_less,
    prepare,
    start,
    whole_shape,
)
from dlsys.train.strategies.idle import Lockstep, reached
from dlsys.train.strategies.phase import TrainedPhase
from dlsys.train.strategies.single import SingleStrategy, first_bad
from dlsys.train.strategies.whole import take_carry
from dlsys.train.strategies.zero_idle import PENALTIES, Idle
from dlsys.train.strategies.zero_slice import Slice
from dlsys.zoo.workload import Carry

# Elements that one message reduces, or one call of stage 3's optimizer updates, whose gradients it
# copies; unless told. 25 MiB of them in fp32, as under DDP.
_BUCKET = 25 * 2**20 // 4
# Optimizer state that counts; all other state has its parameter's shape.
_COUNTERS = ("step", "mu_product")
_AFTER_STEP = {"weight-decay", "max-norm"}


class ZeroStrategy(SingleStrategy):
    def __init__(self) -> None:
        self._undo = ExitStack()

    def setup(self, parts: Parts) -> None:
        phases = parts.workload.phases()
        if len(phases) > 1:
            raise UsageError(
                f"strategy.name: zero trains one phase, and {parts.job.workload} has {len(phases)} "
                f"({', '.join(phase.name for phase in phases)}): use ddp"
            )
        assert isinstance(parts.job.strategy, Zero)
        self._options = parts.job.strategy
        self._stage = self._options.stage
        self._regularized = {regularizer.name for regularizer in parts.job.regularize}
        super().setup(parts)

    def parallelize(self, model: nn.Module) -> nn.Module:
        for name, parameter in model.named_parameters():
            if parameter.is_complex():
                raise UsageError(
                    f"strategy.name: DeepSpeed keeps all parameters in tensors of one type, and {name} is "
                    "complex: use ddp, ring, ps or fsdp"
                )
            if parameter.dim() == 0 and self._stage:
                raise UsageError(
                    f"strategy.stage: from 1 on, DeepSpeed cuts what has dims, and {name} has none: give it "
                    "the shape (1,), or say strategy.stage: 0"
                )
        return model

    def close(self) -> None:
        self._undo.close()

    def wrap(self, module: nn.Module) -> nn.Module:
        world, (trained,) = self._parts.world, self._phases
        if self._precision.dtype is not None:
            # Inside the engine, because that turns off an autocast around it.
            module.forward = self._precision.autocast()(module.forward)  # type: ignore[method-assign]
        prepare(world, self._undo)
        optimizer = trained.optimizer
        if self._options.offload:
            optimizer = compiled_adam(self._parts.job.optimizer, trained.parameters)
        self._engine, self._backend = start(
            module, optimizer, self._config(), world, self._traffic, self._undo
        )
        trained.optimizer = self._engine.optimizer
        self._idle = Idle(trained, self._parts.job, world, self._traffic)
        if self._stage == 3:
            everyone = dist.group.WORLD if world.size > 1 else None
            self._lockstep = Lockstep(everyone, world.device, self._traffic, "say strategy.stage: 1")
            parts = self._model.named_modules()
            self._lockstep.watch((name, part) for name, part in parts if [*part.parameters(recurse=False)])
        if self._stage and not self._options.offload:
            hold_less(self._zero, self._stage, world.rank)
        if self._stage and (bound := self._parts.job.gradient.clip_value) is not None:
            # DeepSpeed clips by norm; the optimizer is then called on the flat gradients.
            self._base.register_step_pre_hook(lambda *_: nn.utils.clip_grad_value_(self._flats, bound))
        engine: nn.Module = self._engine
        return engine

    def _config(self) -> dict[str, Any]:
        job, world = self._parts.job, self._parts.world
        accumulate, device = job.gradient.accumulate, world.device.type
        # Only counts of samples, which nobody reads, come from these: rows are weighted here.
        micro = 1 if job.batch_size == "all" else max(1, job.batch_size // (world.size * accumulate))
        elements = sum(parameter.numel() for parameter in self._model.parameters())
        zero: dict[str, Any] = {"stage": self._stage}
        if self._options.offload:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": device == "cuda"}
        given = self._options.deepspeed
        return {
            **given,
            "train_micro_batch_size_per_gpu": micro,
            "gradient_accumulation_steps": accumulate,
            "train_batch_size": micro * accumulate * world.size,
            "gradient_clipping": job.gradient.clip_norm or self._parts.regularizers.clip_norm or 0.0,
            "zero_allow_untested_optimizer": True,
            # Stage 0 keeps parameters in fp32 under autocast, as DDP does.
            "bf16": {
                "enabled": self._precision.dtype == torch.bfloat16 and self._stage > 0,
                "check_grad_overflow": True,
            },
            "zero_optimization": {
                "reduce_bucket_size": min(elements, _BUCKET),
                "sub_group_size": _BUCKET,
                **given.get("zero_optimization", {}),
                **zero,
            },
        }

    @contextmanager
    def accumulating(self, module: nn.Module) -> Iterator[None]:
        self._engine.set_gradient_accumulation_boundary(False)
        try:
            yield
        finally:
            self._engine.set_gradient_accumulation_boundary(True)

    def backward(self, module: nn.Module, loss: Tensor) -> None:
        (trained,) = self._phases
        found = reached(loss)
        used = [parameter in found for parameter in trained.parameters]
        if self._stage == 3:
            self._lockstep.meet("the end of the model")
        if self._stage >= 2:
            self._idle.same_on_all(used)
        elif self._stage == 1:
            # DeepSpeed reduces what has a gradient, and all workers must reduce the same.
            lacking = [p for p, has in zip(trained.parameters, used, strict=True) if not has]
            loss = loss + sum(parameter.flatten()[0] * 0.0 for parameter in lacking)
        self._idle.note(used)
        # The loss has its share of the whole batch already: not to be divided by the micro-batches.
        self._engine.backward(loss, scale_wrt_gas=False)

    def evaluate_step(self, micro: MicroBatch, carry: Carry) -> tuple[dict[str, Tensor], Carry]:
        if self._stage < 3:
            return super().evaluate_step(micro, carry)
        self.prepare_to_measure()
        # Inside of the module that DeepSpeed surrounds, it also gathers parameters of modules that a
        # workload uses without calling them.
        module: Any = self._engine.module
        train, module.forward = module.forward, super().evaluate_step
        try:
            found: tuple[dict[str, Tensor], Carry] = module(micro, carry)
        finally:
            module.forward = train
        self._lockstep.meet("the end of the model")
        return found

    def update(
        self, trained: TrainedPhase, step: int, hyper: Mapping[str, float | None], sums: dict[str, Tensor]
    ) -> Tensor:
        left_out = self._idle.left_out()
        if self._stage == 0:
            for parameter in left_out:
                parameter.grad = None  # where DeepSpeed put zeros, to average the same on all workers
            return super().update(trained, step, hyper, sums)
        self._idle.refuse(step)
        apply(trained.optimizer, hyper)
        if self._regularized & PENALTIES:
            self._penalize(trained)
        self._engine.step()
        if self._zero.overflow:  # DeepSpeed saw it in the whole gradient's norm, on all workers alike
            raise NonFiniteError(first_bad(trained, step, sums))
        if self._regularized & _AFTER_STEP:
            self._after_step(trained, float(hyper["lr"] or 0.0))
        return torch.as_tensor(self._engine.get_global_grad_norm())

    @torch.no_grad()
    def _penalize(self, trained: TrainedPhase) -> None:
        """Penalties are elementwise: each worker adds them to its slices of the mean gradient."""
        named, gradients = [], []
        for name, parameter in trained.named:
            part = self._slice(parameter)
            if not part.size:
                continue
            gradient = self._gradient(parameter)
            # Of as many dims as the parameter, because biases are passed over; in fp32.
            shape = (-1,) + (1,) * (len(whole_shape(parameter)) - 1)
            piece = nn.Parameter(part.of(self._flats[part.group]).view(shape))
            piece.grad = gradient[: part.size].to(piece).view(shape)
            named.append((name, piece))
            gradients.append((parameter, gradient))
        self._parts.regularizers.penalize(named)
        for (_, piece), (parameter, gradient) in zip(named, gradients, strict=True):
            assert piece.grad is not None
            gradient[: piece.numel()].copy_(piece.grad.flatten())
            if self._options.offload:  # whose norms DeepSpeed took as the gradients came in
                norm = torch.linalg.vector_norm(piece.grad)
                self._zero.norm_for_param_grads[self._zero.get_param_id(parameter)] = norm

    @torch.no_grad()
    def _after_step(self, trained: TrainedPhase, lr: float) -> None:
        """A unit's norm is over all of its weights: this gathers them."""
        named = [
            (name, nn.Parameter(self._whole(parameter, self._flats)))
            for name, parameter in trained.named
            if len(whole_shape(parameter)) >= 2
        ]
        self._parts.regularizers.after_step(named, lr)
        parameters = dict(trained.named)
        for name, whole in named:
            self._put(parameters[name], whole, self._flats)
        self._publish()

    def communication(self) -> Mapping[str, float]:
        return self._traffic.means(timed=self._parts.world.device.type == "cpu")

    # DeepSpeed's optimizer and its flat tensors, from stage 1 on.

    @property
    def _zero(self) -> Any:
        return self._phases[0].optimizer

    @property
    def _base(self) -> torch.optim.Optimizer:
        """The optimizer that updates the flat tensors."""
        base: torch.optim.Optimizer = self._zero.optimizer
        return base

    @property
    def _flats(self) -> list[Tensor]:
        """This worker's part of the parameters, in fp32."""
        name = "fp32_partitioned_groups_flat" if self._stage == 3 else "single_partition_of_fp32_groups"
        flats: list[Tensor] = getattr(self._zero, name)
        return flats

    def _slice(self, parameter: Any) -> Slice:
        if self._stage == 3:
            group, offset, padded = self._zero.grad_position[self._zero.get_param_id(parameter)]
            start = min(self._parts.world.rank * padded, parameter.ds_numel)
            return Slice(group, offset, start, min(padded, parameter.ds_numel - start))
        mapping = parameter._hp_mapping
        if mapping is None:
            return Slice(0, 0, 0, 0)
        there, here = mapping.hp_fragment_address, mapping.lp_fragment_address
        return Slice(mapping.param_group_index, there.start, here.start, here.numel)

    def _gradient(self, parameter: Any) -> Tensor:
        """This worker's slice of the mean gradient, flat, between backward and the step."""
        gradient: Tensor
        if self._stage == 3:
            gradient, _ = self._zero._get_fp32_grad_state_partition(parameter, release_swap_buffers=True)
        else:
            gradient = parameter._hp_mapping.get_lp_grad_fragment(parameter._index_in_param_group)
        return gradient.view(-1)

    def _whole(self, parameter: Any, flats: list[Tensor]) -> Tensor:
        """A parameter, or its state in other flat tensors, from all workers' slices; called on all."""
        part, world = self._slice(parameter), self._parts.world
        found = torch.zeros(whole_shape(parameter), dtype=flats[part.group].dtype, device=world.device)
        part.out_of(found).copy_(part.of(flats[part.group]))
        self._backend.all_reduce(found)
        return found

    def _put(self, parameter: Any, whole: Tensor, flats: list[Tensor]) -> None:
        part = self._slice(parameter)
        part.of(flats[part.group]).copy_(part.out_of(whole))

    def _publish(self) -> None:
        """Makes the model's parameters what the flat tensors hold; called on all workers."""
        zero = self._zero
        if self._stage < 3:
            zero.update_lp_params()
            return
        zero._partition_all_parameters()
        for group in range(len(self._flats)):
            zero._reassign_or_swap_out_partitioned_parameters(group)
        if zero.persistent_parameters:
            zero.persistent_parameters[0].all_gather(zero.persistent_parameters)

    @torch.no_grad()
    def state_out(self) -> State:
        if self._stage == 0:
            return super().state_out()
        (trained,), main = self._phases, self._parts.world.is_main
        ours = {id(parameter) for parameter in trained.parameters}
        model: dict[str, Tensor] = {}
        for name, value in self._model.state_dict(keep_vars=True).items():
            with gathered(value):
                whole = self._whole(value, self._flats) if id(value) in ours else value.detach()
                if main:
                    model[name] = whole.cpu() if whole.is_cuda else whole.clone()
        names = [name for name, _ in trained.named]
        states = [self._base.state.get(flat, {}) for flat in self._flats]
        without = self._idle.without_state if any(states) else set(names)
        held = [item for item in trained.named if item[0] not in without]
        optimizer = {
            "state": {name: self._state_of(parameter, states) for name, parameter in held},
            "param_groups": [{**group, "params": names} for group in self._base.param_groups],
        }
        carry = {trained.phase.name: dict(trained.carries)}
        return State(model, {trained.phase.name: optimizer}, {"carry": carry})

    def _state_of(self, parameter: nn.Parameter, states: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The optimizer's state of one parameter, whole, out of the states of the flat tensors."""
        found = {}
        for key, value in states[self._slice(parameter).group].items():
            if key in _COUNTERS:
                found[key] = torch.as_tensor(value, dtype=torch.float32).clone()
            else:
                found[key] = self._whole(parameter, [state[key] for state in states]).cpu()
        return found if self._parts.world.is_main else {}

    @torch.no_grad()
    def state_in(self, state: State) -> None:
        if self._stage == 0:
            super().state_in(state)
            return
        (trained,) = self._phases
        ours = {id(parameter) for parameter in trained.parameters}
        plain = {}
        for name, value in self._model.state_dict(keep_vars=True).items():
            if id(value) in ours:
                self._put(value, state.model[name], self._flats)
            elif hasattr(value, "ds_id"):
                with gathered(value, changed=True):
                    value.copy_(state.model[name])
            else:
                plain[name] = state.model[name]
        self._model.load_state_dict(plain, strict=False)
        self._publish()
        self._load_optimizer(trained, state.optimizers[trained.phase.name])
        take_carry(trained, state)

    def _load_optimizer(self, trained: TrainedPhase, saved: dict[str, Any]) -> None:
        self._idle.load(saved["state"])
        flats, (group,) = self._flats, self._base.param_groups
        states: dict[int, dict[str, Any]] = {index: {} for index in range(len(flats))}
        for name, parameter in trained.named:
            for key, value in saved["state"].get(name, {}).items():
                if key in _COUNTERS:
                    # The compiled Adam counts in an int.
                    count = int(value) if self._options.offload else torch.as_tensor(value)
                    states[self._slice(parameter).group][key] = count
                    continue
                for index, flat in enumerate(flats):
                    states[index].setdefault(key, torch.zeros_like(flat))
                self._put(parameter, value, [states[index][key] for index in states])
        (options,) = saved["param_groups"]
        # The kernel is this optimizer's own choice, not the state's.
        taken = group.keys() - {"foreach", "fused"}
        options = {key: value for key, value in options.items() if key in taken}
        held = group["params"]  # stage 3 puts the flat tensors there only while the optimizer steps
        group["params"] = flats
        self._base.load_state_dict(
            {
                "state": {index: values for index, values in states.items() if values},
                "param_groups": [{**group, **options, "params": list(states)}],
            }
        )
        self._base.param_groups[0]["params"] = held
