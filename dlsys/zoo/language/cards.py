"""Cards of the language models."""

from __future__ import annotations

from typing import Literal

from dlsys.spec.card import Card, Shape
from dlsys.spec.section import Count, Fraction, Section
from dlsys.zoo.cost import Cost, dense


class CharRNNOptions(Section):
    """The recurrent cell and the size of a character model."""

    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    """LSTM (Hochreiter and Schmidhuber 1997), GRU (Cho et al. 2014) or a plain tanh cell."""
    hidden: Count = 128
    """Units of each recurrent layer."""
    layers: Count = 1
    """Recurrent layers, one on top of the other."""
    embedding: Count = 32
    """Numbers that stand for a character."""
    dropout: Fraction = 0.0
    """The probability of switching off an output of a recurrent layer."""


# Of each cell: gates, and numbers kept for each unit and step. An LSTM keeps four gates, tanh of
# the cell and the output; a GRU three gates and the output; a tanh cell its output alone.
_GATES = {"lstm": 4, "gru": 3, "rnn": 1}
_KEPT = {"lstm": 6, "gru": 4, "rnn": 1}


def _recurrent(cell: str, inputs: int, hidden: int) -> Cost:
    """One step of a recurrent layer: two affine maps into all gates, with a bias each."""
    maps = dense(inputs, _GATES[cell] * hidden) + dense(hidden, _GATES[cell] * hidden)
    return Cost(maps.parameters, maps.flops, _KEPT[cell] * hidden)


def _char_rnn(options: CharRNNOptions, shape: Shape) -> Cost:
    characters = shape.row["tokens"][0]
    vocabulary = len(shape.vocabulary)
    step = Cost(vocabulary * options.embedding, 0, options.embedding)
    for layer in range(options.layers):
        inputs = options.hidden if layer else options.embedding
        step += _recurrent(options.cell, inputs, options.hidden)
    step += dense(options.hidden, vocabulary)
    return Cost(step.parameters, characters * step.flops, characters * step.outputs)


CHAR_RNN = Card(
    name="char-rnn",
    title="Character model with carried state",
    paper="Karpathy 2015, http://karpathy.github.io/2015/05/21/rnn-effectiveness/",
    workload="dlsys.zoo.language.char_rnn:CharRNN",
    options=CharRNNOptions,
    sources=("pydoc", "text"),
    metrics={"bits_per_char": "min"},
    has_dropout=True,
    blocks=("embedding", "recurrent", "output"),
    parameters=lambda o, s: _char_rnn(o, s).parameters,
    flops=lambda o, s: _char_rnn(o, s).flops,
    activation_bytes=lambda o, s: _char_rnn(o, s).activation_bytes,
)
