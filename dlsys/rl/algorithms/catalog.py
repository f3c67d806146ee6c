"""The networks of SAC and what is built on it."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import Encoder
from ray.rllib.core.models.configs import MLPEncoderConfig
from torch import nn


class Together(nn.Module):
    """Encodes an observation and an action as one vector.

    Args:
        encoder: RLlib's, of vectors.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: dict[str, Any]) -> Any:
        return self.encoder({Columns.OBS: torch.cat([batch[Columns.OBS], batch[Columns.ACTIONS]], -1)})


class Catalog(SACCatalog):
    """RLlib's, but for the values of continuous actions, whose network is as wide as the policy's.

    RLlib encodes observation and action each on its own, and joins them in three layers more, of which two
    take three times their width: sixteen times the arithmetic. That is left for images.
    """

    def _build_qf_encoder_continuous(self, framework: str) -> Any:
        if len(self.observation_space.shape) != 1:
            return super()._build_qf_encoder_continuous(framework)
        told = self._model_config_dict
        config = MLPEncoderConfig(
            input_dims=[self.observation_space.shape[0] + self.action_space.shape[0]],
            hidden_layer_dims=told["fcnet_hiddens"][:-1],
            hidden_layer_activation=told["fcnet_activation"],
            output_layer_dim=self.latent_dims[0],
            output_layer_activation=told["fcnet_activation"],
        )
        return Together(config.build(framework))
