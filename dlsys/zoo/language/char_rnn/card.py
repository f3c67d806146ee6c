"""The card of a recurrent character model."""

from __future__ import annotations

from typing import Literal

from dlsys.spec.card import Card, Tiny
from dlsys.spec.section import Count, Fraction, Section
from dlsys.spec.task import NEXT_TOKEN


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


CARD = Card(
    name="char-rnn",
    title="Character model with carried state",
    paper="Karpathy 2015, http://karpathy.github.io/2015/05/21/rnn-effectiveness/",
    workload="dlsys.zoo.language.char_rnn.model:CharRNN",
    options=CharRNNOptions,
    task=NEXT_TOKEN,
    traits=("carried-state", "dropout"),
    blocks=("embedding", "recurrent", "output"),
    tiny=tuple(
        Tiny(options={"cell": cell, "hidden": 24, "layers": layers}, learned=0.3)
        for cell, layers in (("lstm", 1), ("gru", 2), ("rnn", 3))
    ),
)
