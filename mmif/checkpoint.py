"""Weights on disk: a folder with ``model.safetensors`` and ``config.json``; never a pickle.

Everything known of the weights stands in the header of the safetensors file: ``format`` (1), ``model`` (the
:class:`mmif.config.ModelConfig`), stage, steps, hours, labels; so one rename makes weights and configuration together.
``config.json`` repeats it for people, and is the only place in checkpoints of before. Tensors may be stored in float16
and come back as float32. The same tensors and values give the same bytes.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmif.config import ModelConfig
from mmif.files import parse_json, read_json, sha256, write, write_json

if TYPE_CHECKING:
    from mmif.model import MMInvertFill

FORMAT = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"
_HEADER = "mmif"  # the one entry of metadata: safetensors writes several in an order that differs between processes
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}

_log = logging.getLogger(__name__)


class Stored(NamedTuple):
    """A tensor as it lies in a file."""

    shape: tuple[int, ...]
    dtype: str  # as safetensors calls it: F16, F32, I64, ...


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
    """Write ``model`` as a checkpoint folder; the weights and all that is known of them appear at once.

    Args:
        model: the network, or one part of it.
        folder: made if missing.
        config: architecture of the whole model.
        extra: JSON values to keep: stage, steps, hours, labels.
        prefix: name of the part inside :class:`mmif.model.MMInvertFill`, empty for the whole.
        dtype: store floating tensors in this type; None keeps theirs.

    Returns:
        The weights file.

    Raises:
        OSError: the disk is full, or nothing may be written there; the checkpoint of before is untouched.
    """
    from safetensors.torch import save as to_bytes

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dot = f"{prefix}." if prefix else ""
    state = {dot + k: _stored(v, dtype) for k, v in model.state_dict().items()}
    info = {"format": FORMAT, **extra, "model": config.to_dict()}
    write(folder / WEIGHTS, to_bytes(state, metadata={_HEADER: json.dumps(info, allow_nan=False)}))
    write_json(folder / CONFIG, info)
    return folder / WEIGHTS


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def resolve(name: str | Path) -> Path:
    """Find a checkpoint folder: a bundled name, a folder on disk, or ``owner/name`` on the Hugging Face hub.

    A bundled name is that, whatever lies in the working folder; ``./scenes-128``, or a Path, is the folder.

    Raises:
        ValueError: nothing has that name; the message lists what is bundled.
    """
    folder, known = Path(name), bundled()
    if isinstance(name, str) and name in known:
        return known[name]
    if folder.is_dir():
        if not (folder / WEIGHTS).is_file():
            raise ValueError(f"a checkpoint folder must hold {WEIGHTS}; {folder} does not")
        return folder
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
            f'{name!r} is not a folder here; to fetch it from the hub: pip install "mminvertfill[hub]"'
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=[WEIGHTS, CONFIG, "README.md"]))
    except Exception as error:
        raise ValueError(f"{name!r} is not a folder here and could not be fetched from the hub: {error}") from error


def read(folder: str | Path) -> tuple[ModelConfig, dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint folder: configuration, what else is known of the weights, tensors in float32.

    Raises:
        ValueError: a file is missing, corrupt, or of another format.
    """
    config, info, stored = read_header(folder)
    return config, info, _tensors(Path(folder) / WEIGHTS, stored)


def read_header(folder: str | Path) -> tuple[ModelConfig, dict[str, Any], dict[str, Stored]]:
    """Read what is known of the weights of a checkpoint folder, and which tensors there are, without the tensors.

    Raises:
        ValueError: a file is missing, corrupt, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    weights = Path(folder) / WEIGHTS
    try:
        with safe_open(str(weights), "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            stored = {name: Stored(tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
            header = (file.metadata() or {}).get(_HEADER)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{weights} must be a safetensors file, and cannot be read: {error}") from error
    return *_info(Path(folder), header), stored


def _info(folder: Path, header: str | None) -> tuple[ModelConfig, dict[str, Any]]:
    """Configuration and other entries: those of the weights' own header, or of config.json where it has none."""
    source = folder / (CONFIG if header is None else WEIGHTS)
    try:
        info = read_json(source) if header is None else parse_json(header)
        if not isinstance(info, dict):
            raise ValueError("it is not a JSON object")
        if info.get("format") != FORMAT:
            raise ValueError(f"it must have format {FORMAT}, this program reads no other")
        config = ModelConfig.from_dict(info.get("model"))
    except ValueError as error:
        raise ValueError(f"{source} must hold a model configuration, and cannot be read: {error}") from error
    if header is not None:
        _compare(folder / CONFIG, info)
    return config, {key: value for key, value in info.items() if key not in ("format", "model")}


def _compare(file: Path, info: dict[str, Any]) -> None:
    """Say it where config.json is not that of the weights: somebody changed it, or a run was killed between the two."""
    try:
        told = read_json(file) if file.exists() else info
    except ValueError as error:
        told = {"file": str(error)}
    if told != info:
        _log.warning("%s says otherwise than %s, which holds its own configuration and decides", file, WEIGHTS)


def _tensors(weights: Path, stored: Mapping[str, Stored]) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_dtypes(weights, stored)
    try:
        state = load_file(str(weights))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{weights} must be a safetensors file, and cannot be read: {error}") from error
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _check_dtypes(weights: Path, stored: Mapping[str, Stored]) -> None:
    wrong = next((name for name, tensor in stored.items() if tensor.dtype not in _DTYPES), None)
    if wrong:
        types = ", ".join(_DTYPES)
        raise ValueError(f"{weights} must hold tensors of the types {types}; {wrong} is {stored[wrong].dtype}")


def load(name: str | Path, device: torch.device | str = "cpu") -> tuple[MMInvertFill, dict[str, Any]]:
    """Load a whole model, in eval mode on ``device``, and what is known of its weights.

    Returns:
        The model, and what was saved with it plus ``name``, ``folder`` and ``sha256`` of the weights file.

    Raises:
        ValueError: unknown name, the generator of `mmif-train gan` alone, or missing, corrupt or mismatched weights.
    """
    from mmif.model import MMInvertFill

    folder = resolve(name)
    config, info, stored = read_header(folder)
    if info.get("stage") == "gan":
        raise ValueError(
            f"{folder} must hold a whole model, and holds a generator of `mmif-train gan` alone: train the rest with "
            f"`mmif-train encoder --generator {folder}`"
        )
    with _Budget(stored, folder / WEIGHTS):
        model = MMInvertFill(config)
    check_fits(model, stored, folder / WEIGHTS)
    model.load_state_dict(_tensors(folder / WEIGHTS, stored))
    info |= {"name": folder.name, "folder": str(folder), "sha256": sha256(folder / WEIGHTS)}
    return model.eval().to(device), info


class _Budget(TorchFunctionMode):
    """Refuse, before it is allocated, a model that is many times larger than the tensors it is built for.

    A configuration of a few lines may ask for any size; a file pays for it with its own. (On the meta device a model
    would cost nothing, but for the import of PyTorch's compiler, which takes seconds.)
    """

    FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
    SLACK = 4, 50_000_000  # times the file, and numbers more: what is a little too large is told tensor by tensor

    def __init__(self, stored: Mapping[str, Stored], source: Path):
        super().__init__()
        self.held, self.source = sum(math.prod(tensor.shape) for tensor in stored.values()), source
        self.left = self.SLACK[0] * self.held + self.SLACK[1]

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in self.FACTORIES:
            sizes = (kwargs or {}).get("size", args[0] if args and isinstance(args[0], (tuple, list)) else args)
            self.left -= math.prod(sizes)
            if self.left < 0:
                raise ValueError(
                    f"{self.source} must fit its configuration, which asks for more than its {self.held} numbers"
                )
        return func(*args, **(kwargs or {}))


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Load ``state`` into ``module`` exactly; see :func:`check_fits`."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    check_fits(module, {k: Stored(tuple(v.shape), names.get(v.dtype, str(v.dtype))) for k, v in state.items()}, source)
    module.load_state_dict(dict(state))


def check_fits(module: nn.Module, stored: Mapping[str, Stored], source: Path) -> None:
    """Check that ``stored`` are the tensors of ``module``.

    Raises:
        ValueError: says how many tensors are missing, unknown, misshapen, or whole numbers in place of fractions.
    """
    own = module.state_dict()
    missing, unknown = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
    both = sorted(own.keys() & stored.keys())
    misshapen = [k for k in both if tuple(own[k].shape) != stored[k].shape]
    mistyped = [k for k in both if not _same_kind(own[k].dtype, stored[k].dtype)]
    if missing or unknown or misshapen or mistyped:
        first = (missing + unknown + misshapen + mistyped)[0]
        raise ValueError(
            f"{source} must fit its configuration: {len(missing)} tensors are missing, {len(unknown)} unknown, "
            f"{len(misshapen)} of another shape and {len(mistyped)} of another type (first: {first})"
        )


def _same_kind(own: torch.dtype, stored: str) -> bool:
    """Fractions may be stored in another precision; whole numbers may not, nor one as the other."""
    dtype = _DTYPES.get(stored)
    return dtype == own or (dtype is not None and dtype.is_floating_point and own.is_floating_point)


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below ``prefix``, without it."""
    return {k.removeprefix(f"{prefix}."): v for k, v in state.items() if k.startswith(f"{prefix}.")}
