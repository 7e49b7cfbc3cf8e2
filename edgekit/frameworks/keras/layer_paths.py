"""Which layer of a Keras model a name in a converted file means.

A converter's names are scopes of the traced graph. Keras 3 opens a layer's scope twice, so that TensorFlow numbers it
(``dense_1`` for ``dense``); quantization-aware training wraps a layer under a name of its own (``quant_dense``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_NUMBER = re.compile(r"_\d+$")
_WRAPPED = ("quant_", "prune_low_magnitude_", "cluster_")


class LayerPaths:
    """Finds the layers of one model.

    Args:
        known: Dotted names of the model's layers.
    """

    def __init__(self, known: Collection[str]) -> None:
        self._known = frozenset(known)
        self._found: dict[str, str] = {}

    def find(self, path: str) -> str:
        """Return the layer that a dotted path leads to, or into; the path itself where no layer is on it.

        Example:
            >>> LayerPaths(["block.conv"]).find("net_1.block_1.conv_1.Conv2D")
            'block.conv'
        """
        if path not in self._found:
            self._found[path] = self._search(path.split(".")) or path
        return self._found[path]

    def _search(self, parts: list[str]) -> str | None:
        """Look for the longest known path, with as little left out at the front as possible."""
        for start in range(len(parts)):
            for stop in range(len(parts), start, -1):
                for candidate in _spellings(parts[start:stop]):
                    if candidate in self._known:
                        return candidate
        return None


def _spellings(parts: list[str]) -> Iterator[str]:
    """Yield a path as it stands, without wrappers, without numbers, without both."""
    plain = [_unwrapped(part) for part in parts]
    yield ".".join(parts)
    yield ".".join(plain)
    yield ".".join(_NUMBER.sub("", part) for part in plain)
    # Only some scopes are numbered: a layer of that very name may exist among them.
    for number, part in enumerate(plain):
        yield ".".join([*plain[:number], _NUMBER.sub("", part), *plain[number + 1 :]])


def _unwrapped(part: str) -> str:
    for prefix in _WRAPPED:
        part = part.removeprefix(prefix)
    return part
