"""Checkpoints that torch pickled, read as tensors alone. The only module that imports torch."""

import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from promptmad_jax.runtime.errors import UserError

SUFFIXES = (".pth", ".pt", ".pkl", ".bin", ".ckpt")
_NESTS = ("state_dict", "model", "model_state_dict")


def read_pickle(path: Path) -> dict[str, np.ndarray]:
    """Reads the state dict of a checkpoint, on its own or nested in a training state.

    torch's restricted unpickler builds tensors and plain containers and refuses everything else: a
    malicious file runs nothing.

    Raises:
        UserError: torch is absent; the file is damaged, or wants more than tensors.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path}: a pickle, and reading one needs torch, which is not installed; "
            "`pip install torch` here, or convert the file where torch is"
        ) from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path}: {_reason(error)}") from error
    return {key: _array(path, key, value) for key, value in _state_dict(path, loaded).items()}


def _reason(error: Exception) -> str:
    text = str(error)
    if "TorchScript" in text:
        return (
            "a TorchScript archive, which is a program; save its state_dict() with torch once, or "
            "take the safetensors copy of the same model"
        )
    if "Unsupported global" in text or "weights_only" in text.lower():
        return (
            "the pickle wants more than tensors, and nothing of it was run; where you trust it, "
            "save its state_dict() alone"
        )
    line = (text.strip() or type(error).__name__).splitlines()[0]
    return f"cannot be read ({line}); the file is truncated or damaged: fetch it again"


def _state_dict(path: Path, loaded: Any) -> dict[str, Any]:
    for nest in _NESTS:
        if isinstance(loaded, dict) and isinstance(loaded.get(nest), dict):
            return loaded[nest]
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    return loaded


def _array(path: Path, key: str, value: Any) -> np.ndarray:
    import torch

    if not isinstance(value, torch.Tensor):
        raise UserError(f"{path}: {key} is a {type(value).__name__}, not a tensor")
    value = value.detach().contiguous()
    if value.dtype == torch.bfloat16:
        return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return value.numpy()
