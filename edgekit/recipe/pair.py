"""The same model in two frameworks: where each is, told from the name of either."""

from __future__ import annotations

import re

from edgekit.errors import RecipeError
from edgekit.records import FrameworkName

PLACEHOLDERS: dict[FrameworkName, str] = {"pytorch": "my_model_pytorch:build", "keras": "my_model_keras:build"}
_WORDS: dict[FrameworkName, str] = {"pytorch": "pytorch|torch", "keras": "tf_keras|keras"}


def model_pair(model: str | None, *, pytorch: str | None = None, keras: str | None = None) -> dict[FrameworkName, str]:
    """Return the model's source in each framework.

    What is not stated is told from what is: the twin of ``digits.model_pytorch:build`` is ``digits.model_keras:build``.

    Args:
        model: ``package.module:callable`` whose last module names its framework.
        pytorch: The PyTorch model; None: told from the others.
        keras: The Keras model; None: told from the others.

    Raises:
        RecipeError: A model is not stated, and the others do not name a framework.

    Example:
        >>> model_pair("nets.resnet_torch:build")
        {'pytorch': 'nets.resnet_torch:build', 'keras': 'nets.resnet_keras:build'}
    """
    stated: dict[FrameworkName, str | None] = {"pytorch": pytorch, "keras": keras}
    known = [source for source in (model, pytorch, keras) if source is not None]
    if not known:
        return dict(PLACEHOLDERS)
    return {framework: stated[framework] or _twin(known, framework) for framework in PLACEHOLDERS}


def _twin(known: list[str], framework: FrameworkName) -> str:
    """Return the first known source that is this framework's, or else the twin of the first that is the other's."""
    other: FrameworkName = "keras" if framework == "pytorch" else "pytorch"
    own = next((source for source in known if _named(source, framework)), None)
    if own is not None:
        return own
    theirs = next((source for source in known if _named(source, other)), None)
    if theirs is None:
        raise RecipeError(
            f"--both: expected --model-pytorch and --model-keras, or a --model whose module names its framework "
            f"(package.model_pytorch:build, whose twin is package.model_keras:build); received {', '.join(known)}, "
            f"which does not say where the {framework} model is."
        )
    module, colon, attribute = theirs.partition(":")
    package, dot, last = module.rpartition(".")
    return f"{package}{dot}{_pattern(other).sub(framework, last, count=1)}{colon}{attribute}"


def _named(source: str, framework: FrameworkName) -> bool:
    module, colon, _ = source.partition(":")
    return bool(colon) and _pattern(framework).search(module.rpartition(".")[2]) is not None


def _pattern(framework: FrameworkName) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z])(?:{_WORDS[framework]})(?![a-z])")
