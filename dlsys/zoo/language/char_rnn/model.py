"""Character model (Karpathy 2015, http://karpathy.github.io/2015/05/21/rnn-effectiveness/).

Trained by truncated backpropagation through time (Williams and Peng 1990): the state goes on from
one window of a stream to the next, gradients stop at the border.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlsys.zoo.language.char_rnn.card import CARD, CharRNNOptions
from dlsys.zoo.tasks.next_token import NextToken
from dlsys.zoo.workload import Batch, Carry

_CELLS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}

SAMPLE_LENGTH = 200


class CharModel(nn.Module):
    """Embedding, recurrent layers, an affine layer to logits."""

    def __init__(self, options: CharRNNOptions, vocabulary: int) -> None:
        super().__init__()
        cell, hidden = _CELLS[options.cell], options.hidden
        self.embedding = nn.Embedding(vocabulary, options.embedding)
        # One module a layer, not torch's `num_layers`: its dropout is a number, not a layer that
        # a regularizer could find.
        self.recurrent = nn.ModuleList(
            cell(hidden if layer else options.embedding, hidden, batch_first=True)
            for layer in range(options.layers)
        )
        self.dropout = nn.Dropout(options.dropout)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, tokens: Tensor, carry: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits and the state behind the last character.

        Args:
            tokens: int64, shape (rows, characters).
            carry: tensors of shape (rows, layers, hidden): the outputs, and an LSTM's cells;
                None starts from zeros.

        Returns:
            Logits of shape (rows, characters, vocabulary), and a carry, detached.
        """
        x = self.embedding(tokens)
        ends: list[tuple[Tensor, ...]] = []
        for index, layer in enumerate(self.recurrent):
            state = None
            if carry is not None:
                # torch wants (layers, rows, hidden), whatever `batch_first` says.
                parts = tuple(part[:, index].unsqueeze(0).contiguous() for part in carry)
                state = parts if isinstance(layer, nn.LSTM) else parts[0]
            x, end = layer(x, state)
            ends.append(end if isinstance(end, tuple) else (end,))
            x = self.dropout(x)
        # ends[layer][part] of shape (1, rows, hidden) → carry[part] of shape (rows, layers, hidden)
        new = tuple(torch.cat(parts).transpose(0, 1).detach() for parts in zip(*ends, strict=True))
        return self.output(x), new


class CharRNN(NextToken):
    """Predicts each next character of streams: its state goes on from window to window."""

    Options = CharRNNOptions
    card = CARD
    order = "streams"

    def build(self) -> nn.Module:
        return CharModel(self.options, len(self.shape.vocabulary))

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        logits, carry = model(batch["tokens"], carry)
        return logits, carry

    @torch.no_grad()
    def samples(self, model: nn.Module, seed: int) -> dict[str, str | Tensor]:
        """200 characters drawn from the model, as if behind a line end."""
        vocabulary = self.shape.vocabulary
        device = next(model.parameters()).device
        generator = torch.Generator().manual_seed(seed)
        token = vocabulary.index("\n") if "\n" in vocabulary else 0
        text, carry = "", None
        for _ in range(SAMPLE_LENGTH):
            logits, carry = model(torch.tensor([[token]], device=device), carry)
            chances = logits[0, 0].float().softmax(-1).cpu()
            token = int(torch.multinomial(chances, 1, generator=generator))
            text += vocabulary[token]
        return {"sample.txt": text}
