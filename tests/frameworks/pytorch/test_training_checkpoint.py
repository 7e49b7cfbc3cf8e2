"""Checkpoints: whole or not there, checked before they are believed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import tiny_training as tiny
import torch

from edgekit.frameworks.pytorch.checkpoint import Checkpoints, write_weights

STATE = {"module": {"w": torch.arange(3.0)}, "history": [1, "two", None], "best": (0.5, 1, None)}


def test_newest_state_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in range(1, 5):
        checkpoints.save(epoch, "this run", {**STATE, "epoch": epoch})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-000003.ckpt", "epoch-000004.ckpt"]
    state = checkpoints.load("this run")
    assert state is not None
    assert state["epoch"] == 4
    assert torch.equal(state["module"]["w"], torch.arange(3.0))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_former_state_is_used_with_a_note_when_the_newest_is_damaged(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, "run", {"epoch": 1, "w": torch.zeros(1000)})
    checkpoints.save(2, "run", {"epoch": 2, "w": torch.zeros(1000)})
    path = tmp_path / "epoch-000002.ckpt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # inside the tensor: PyTorch's own reader would not notice
    path.write_bytes({"truncate": bytes(data[:-100]), "flip": bytes(data), "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        state = checkpoints.load("run")
    assert state is not None
    assert state["epoch"] == 1
    assert "epoch-000002.ckpt is incomplete or damaged" in caplog.text


def test_nothing_is_loaded_when_it_belongs_to_another_run(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(1, "one", STATE)
    assert Checkpoints(tmp_path).load("another") is None
    assert Checkpoints(tmp_path / "missing").load("one") is None


def test_leftover_of_an_interrupted_write_is_not_read(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(1, "run", STATE)
    (tmp_path / ".epoch-000002.ckpt.77.partial").write_bytes(b"half")
    assert Checkpoints(tmp_path).load("run") is not None


def test_weights_are_the_same_bytes_when_they_are_equal(tmp_path: Path) -> None:
    state = tiny.convolutions().state_dict()
    write_weights(state, tmp_path / "a" / "weights.pt")
    other = tiny.convolutions().to(memory_format=torch.channels_last).to(memory_format=torch.contiguous_format)
    write_weights(other.state_dict(), tmp_path / "other" / "weights.pt")
    assert (tmp_path / "a" / "weights.pt").read_bytes() == (tmp_path / "other" / "weights.pt").read_bytes()
    loaded = torch.load(tmp_path / "a" / "weights.pt", weights_only=True)
    assert list(loaded) == list(state)
