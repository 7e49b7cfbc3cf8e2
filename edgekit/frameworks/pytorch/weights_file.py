"""Read state dicts without executing what they carry."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgekit.errors import ModelError, UntrustedCodeError

_PICKLE_START = b"\x80"


def read_weights(path: Path, *, trust: bool = False) -> dict[str, Tensor]:
    """Read a state dict (``.pt``, ``.pth``, ``.safetensors``).

    Args:
        path: The file. A dictionary with the one entry ``state_dict`` or ``model`` is looked into.
        trust: Allow pickles that execute code, and whole modules.

    Raises:
        ModelError: There is no such file, or it is truncated or holds no state dict.
        UntrustedCodeError: Reading it would execute code, and ``trust`` is not set.
    """
    if not path.is_file():
        raise ModelError(f"expected a file of weights; there is no file {str(path)!r}")
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path, trust=trust)
    if isinstance(loaded, nn.Module):
        return loaded.state_dict()
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ModelError(
            f"expected a state dict (names to tensors) in {str(path)!r}; received {type(loaded).__name__}. "
            "Save one with torch.save(module.state_dict(), path)"
        )
    return dict(loaded)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{str(path)!r} is truncated or no safetensors file: {error}") from error
    return tensors


def _read_checkpoint(path: Path, *, trust: bool) -> Any:
    if not trust:
        _refuse_code(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust)
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{str(path)!r} is truncated or no file written by torch.save ({type(error).__name__}). "
            "Copy it again, or save it anew"
        ) from error


def _refuse_code(path: Path) -> None:
    """Look into the pickle without running it.

    Raises:
        UntrustedCodeError: It names functions or classes besides those of plain tensors.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise ModelError(
                    f"{str(path)!r} is a TorchScript archive. Give the module's code as package.module:callable and "
                    "its weights as a state dict, or a .pt2 program"
                )
        try:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except (RuntimeError, pickle.UnpicklingError) as error:
            raise ModelError(f"{str(path)!r} is no file written by torch.save ({type(error).__name__})") from error
    elif path.read_bytes()[:1] == _PICKLE_START:
        names = _legacy_globals(path)
    else:
        return
    if names:
        raise UntrustedCodeError(
            f"loading {str(path)!r} would execute code that it carries ({', '.join(sorted(names)[:4])}). If you trust "
            "where it comes from, allow it with --trust (model.trust in a recipe); better, save a state dict instead"
        )


def _legacy_globals(path: Path) -> list[str]:
    """A pickle of torch before 1.6 is several pickles in a row, which only the restricted reader walks safely."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return ["a pickle that holds more than tensors"]
    except (EOFError, RuntimeError, ValueError, KeyError, IndexError) as error:
        raise ModelError(f"{str(path)!r} is truncated or no file written by torch.save") from error
    return []
