"""The published rows, and which of them may be looked at while models are built (`held_out.yaml`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

FOLDER = Path(__file__).parent
ENGINES = ("xnnpack", "ncnn")
ANCHORS = {"xnnpack": "mobilenet_v1", "ncnn": "mobilenet"}
"""The network whose published figure stands for the one measurement that a user makes on the device."""

Standing = Literal["development", "held out"]
Key = tuple[str, str, str]
"""Engine, device, network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published figure.

    Attributes:
        engine: ``xnnpack`` (run as LiteRT, whose CPU delegate it is) or ``ncnn``.
        device: Name in the published table's file.
        target: Name of the device file.
        published_ms: One inference on one thread.
        standing: ``development`` where the row was looked at while the models were built.
    """

    engine: str
    device: str
    target: str
    network: str
    published_ms: float
    standing: Standing

    @property
    def key(self) -> Key:
        """What estimates are filed under."""
        return (self.engine, self.device, self.network)

    @property
    def precision(self) -> str:
        """What the network's weights and activations are."""
        return "int8" if self.network.endswith("_int8") else "fp32"


def published(engine: str) -> tuple[Row, ...]:
    """Return an engine's rows, device by device."""
    table = _read(FOLDER / "published" / f"{engine}.yaml")
    development = _read(FOLDER / "held_out.yaml")["development"][engine]
    rows = []
    for device, content in table["devices"].items():
        figures = content["min"] if isinstance(content, dict) else content
        target = content["target"] if isinstance(content, dict) else device
        for network, figure in zip(table["networks"], figures, strict=True):
            if figure is not None:
                seen = device in development["devices"] and network in development["networks"]
                standing: Standing = "development" if seen else "held out"
                rows.append(
                    Row(
                        engine=engine,
                        device=device,
                        target=target,
                        network=network,
                        published_ms=float(figure),
                        standing=standing,
                    )
                )
    return tuple(rows)


def devices(engine: str) -> tuple[str, ...]:
    """Return the devices of an engine's rows, in the order of the file."""
    return tuple(dict.fromkeys(row.device for row in published(engine)))


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content
