"""`init:` — what weights begin with. It is done in `dlsys.train.initial`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.section import FileName, NonNegative, Number, Positive, Section, Text


class Init(Section):
    """The weights that training begins with."""

    run: Text = ""
    """The beginning of a run's id: its best checkpoint, or the last where it has no best one."""
    file: FileName = ""
    """Or a file: `.safetensors`, or a `state_dict` that torch saved."""
    rename: dict[Text, Text] = Field(default_factory=dict)
    """Other beginnings for names: `{backbone.: ""}`."""
    leave: tuple[Text, ...] = ()
    """Patterns of names that are not taken, such as a head's: `[fc.*]`."""


class _Layers(Section):
    match: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Patterns of parameters' names: `["conv*.weight"]`."""


class ConstantWeights(_Layers):
    """The same number everywhere."""

    name: Literal["constant"]
    value: Number = 0.0
    """The number."""


class NormalWeights(_Layers):
    """Normal numbers."""

    name: Literal["normal"]
    mean: Number = 0.0
    """Their mean."""
    std: NonNegative = 0.02
    """Their standard deviation."""


class TruncatedNormalWeights(_Layers):
    """Normal numbers around 0, drawn again beyond two standard deviations."""

    name: Literal["trunc-normal"]
    std: Positive = 0.02
    """The standard deviation of what is not yet cut."""


class UniformWeights(_Layers):
    """Numbers between two others."""

    name: Literal["uniform"]
    bound: Positive = 0.05
    """They are from -bound to bound."""


class XavierWeights(_Layers):
    """A variance of 2 / (inputs + outputs) (Glorot and Bengio 2010)."""

    name: Literal["xavier-normal", "xavier-uniform"]
    gain: Positive = 1.0
    """The standard deviation is multiplied by this."""


class KaimingWeights(_Layers):
    """A variance of 2 / inputs (He et al. 2015, arXiv:1502.01852)."""

    name: Literal["kaiming-normal", "kaiming-uniform"]
    mode: Literal["fan_in", "fan_out"] = "fan_in"
    """Whether inputs are counted, or outputs: what goes forward keeps its variance, or gradients do."""
    nonlinearity: Literal["relu", "leaky_relu", "tanh", "sigmoid", "linear", "selu"] = "relu"
    """What comes behind the layer: the 2 is relu's."""


class OrthogonalWeights(_Layers):
    """Rows or columns that are orthogonal (Saxe et al. 2014, arXiv:1312.6120)."""

    name: Literal["orthogonal"]
    gain: Positive = 1.0
    """Their length."""


class IdentityWeights(_Layers):
    """What comes in goes out: ones on the diagonal, of convolutions in the middle of the window."""

    name: Literal["identity"]


LayerWeights = Annotated[
    ConstantWeights
    | NormalWeights
    | TruncatedNormalWeights
    | UniformWeights
    | XavierWeights
    | KaimingWeights
    | OrthogonalWeights
    | IdentityWeights,
    Field(discriminator="name"),
]


class TrainInit(Init):
    """The weights that training begins with: another run's, a file's, or drawn anew by layer."""

    layers: tuple[LayerWeights, ...] = ()
    """How weights begin that are not taken: `[{match: ["conv*.weight"], name: kaiming-normal}]`. Of several
    that match, the first counts."""
