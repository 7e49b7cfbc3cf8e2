"""A gated recurrent unit (Cho et al. 2014) over short sequences of sensor readings."""

from __future__ import annotations

import torch
from torch import nn


class SequenceClassifier(nn.Module):
    """GRU over the sequence; its last state is classified.

    Args:
        channels: Readings a step.
        classes: Number of classes.
        hidden: Size of the state.
    """

    def __init__(self, channels: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(channels, hidden, batch_first=True)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Map sequences ``[B, T, channels]`` to scores ``[B, classes]``."""
        states, _ = self.gru(sequence)
        return self.classifier(states[:, -1])


def build(channels: int = 3, classes: int = 5, hidden: int = 48) -> nn.Module:
    """Build the network, untrained."""
    return SequenceClassifier(channels, classes, hidden)
