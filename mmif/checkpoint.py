"""Weights on disk: a folder with ``config.json`` and ``model.safetensors``; never a pickle.

``config.json`` holds ``format`` (1), ``model`` (the :class:`mmif.config.ModelConfig`) and what else is known of the
weights: stage, steps, hours, labels. The safetensors header repeats format and stage. Tensors may be stored in float16
and come back as float32.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmif.config import ModelConfig

if TYPE_CHECKING:
    from mmif.model import MMInvertFill

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def bundled() -> dict[str, Path]:
    """Weights that came with the package: preset name to folder."""
    root = Path(str(resources.files("mmif"))) / "weights"
    return {folder.name: folder for folder in sorted(root.glob("*")) if (folder / WEIGHTS).is_file()}


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    config: ModelConfig,
    extra: Mapping[str, Any],
    prefix: str = "",
    dtype: torch.dtype | None = None,
) -> Path:
    """Write ``model`` as a checkpoint folder; files are written whole, under a temporary name first.

    Args:
        model: the network, or one part of it.
        folder: made if missing.
        config: architecture of the whole model.
        extra: JSON values kept in ``config.json``: stage, steps, hours, labels.
        prefix: name of the part inside :class:`mmif.model.MMInvertFill`, empty for the whole.
        dtype: store floating tensors in this type; None keeps theirs.

    Returns:
        The weights file.
    """
    from safetensors.torch import save as to_bytes

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dot = f"{prefix}." if prefix else ""
    state = {dot + k: _stored(v, dtype) for k, v in model.state_dict().items()}
    header = {"format": str(FORMAT), "stage": str(extra.get("stage", "")), "project": "mminvertfill"}
    temporary = folder / (WEIGHTS + ".tmp")
    temporary.write_bytes(to_bytes(state, metadata=header))
    os.replace(temporary, folder / WEIGHTS)
    text = json.dumps({"format": FORMAT, **extra, "model": config.to_dict()}, indent=2)
    (folder / (CONFIG + ".tmp")).write_text(text + "\n", encoding="utf-8")
    os.replace(folder / (CONFIG + ".tmp"), folder / CONFIG)
    return folder / WEIGHTS


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def resolve(name: str | Path) -> Path:
    """Find a checkpoint folder: a folder on disk, a bundled preset, or ``owner/name`` on the Hugging Face hub.

    Raises:
        ValueError: nothing has that name; the message lists what is bundled.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
            raise ValueError(f"a checkpoint folder must hold {CONFIG} and {WEIGHTS}; {folder} does not")
        return folder
    known = bundled()
    if str(name) in known:
        return known[str(name)]
    if str(name).count("/") == 1 and not str(name).startswith((".", "/", "~")):
        return _from_hub(str(name))
    raise ValueError(
        f"no weights called {str(name)!r}: give a checkpoint folder, a hub id owner/name, "
        f"or a bundled name ({', '.join(known) or 'none in this installation'})"
    )


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download  # pyright: ignore[reportMissingImports] - optional
    except ImportError:
        raise ValueError(
            f"{name!r} is no folder here; to fetch it from the hub install huggingface-hub: pip install huggingface-hub"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=[WEIGHTS, CONFIG, "README.md"]))
    except Exception as error:
        raise ValueError(f"{name!r} is no folder here and could not be fetched from the hub: {error}") from error


def read(folder: str | Path) -> tuple[ModelConfig, dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint folder: configuration, the other entries of ``config.json``, tensors in float32.

    Raises:
        ValueError: a file is missing, corrupt, or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        info = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if info.pop("format") != FORMAT:
            raise ValueError(f"{folder / CONFIG} must have format {FORMAT}; this program reads no other")
        config = ModelConfig.from_dict(info.pop("model"))
    except (OSError, AttributeError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder / CONFIG} must be a model configuration, and cannot be read: {error}") from error
    try:
        state = load_file(str(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder / WEIGHTS} must be a safetensors file, and cannot be read: {error}") from error
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    return config, info, state


def load(name: str | Path, device: torch.device | str = "cpu") -> tuple[MMInvertFill, dict[str, Any]]:
    """Load a whole model, in eval mode on ``device``, and what is known of its weights.

    Returns:
        The model, and the entries of ``config.json`` plus ``name``, ``folder`` and ``sha256`` of the weights file.

    Raises:
        ValueError: unknown name, or missing, corrupt or mismatched weights.
    """
    from mmif.model import MMInvertFill

    folder = resolve(name)
    config, info, state = read(folder)
    model = MMInvertFill(config)
    load_into(model, state, folder / WEIGHTS)
    info |= {"name": folder.name, "folder": str(folder), "sha256": sha256(folder / WEIGHTS)}
    return model.eval().to(device), info


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Load ``state`` into ``module`` exactly; ValueError says how many tensors are missing, unknown or misshapen."""
    own = module.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    misshapen = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or unknown or misshapen:
        first = (missing + unknown + sorted(misshapen))[0]
        raise ValueError(
            f"{source} must fit its configuration: {len(missing)} tensors are missing, {len(unknown)} unknown and "
            f"{len(misshapen)} of another shape (first: {first})"
        )
    module.load_state_dict(dict(state))


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below ``prefix``, without it."""
    return {k.removeprefix(f"{prefix}."): v for k, v in state.items() if k.startswith(f"{prefix}.")}


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
