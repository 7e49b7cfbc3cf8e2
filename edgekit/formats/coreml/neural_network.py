"""Models from before ML programs: ``neuralnetwork``, read and reported, never run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from edgekit.errors import UnsupportedError


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuralNetwork:
    """What such a model says of itself.

    Attributes:
        kind: ``neuralNetwork``, ``neuralNetworkClassifier`` or ``neuralNetworkRegressor``.
        specification_version: 1 to 5; later ones may hold them too.
        layers: Kind of layer -> how many.
        inputs: Names.
        outputs: Names.
    """

    kind: str
    specification_version: int
    layers: dict[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_neural_network(specification: Any) -> NeuralNetwork | None:
    """Describe a model of this kind; None when it is of another kind."""
    kind = specification.WhichOneof("Type") or ""
    if not kind.startswith("neuralNetwork"):
        return None
    layers = Counter(layer.WhichOneof("layer") or "unknown" for layer in getattr(specification, kind).layers)
    return NeuralNetwork(
        kind=kind,
        specification_version=specification.specificationVersion,
        layers=dict(sorted(layers.items())),
        inputs=tuple(item.name for item in specification.description.input),
        outputs=tuple(item.name for item in specification.description.output),
    )


def refuse(network: NeuralNetwork, name: str) -> UnsupportedError:
    """Return the error that reports such a model and says what to do."""
    layers = ", ".join(f"{count} {kind}" for kind, count in network.layers.items()) or "no layers"
    return UnsupportedError(
        f"{name}, a {network.kind} of specification {network.specification_version} "
        f"({', '.join(network.inputs)} to {', '.join(network.outputs)}; {layers}),",
        reason="it is of the kind from before ML programs, which holds neither typed operations nor float16 values",
        instead="the source model, converted with convert_to='mlprogram' (minimum_deployment_target iOS15 or newer)",
    )
