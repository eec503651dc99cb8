"""MMInvertFill: image inpainting by multimodal-guided GAN inversion.

The public names below are imported when they are first used, so that ``import mmif`` loads nothing, prints nothing and
touches no device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmif.config import PRESETS, ModelConfig, from_preset
    from mmif.inpaint import Inpainter, Job
    from mmif.model import MMInvertFill

    __version__: str

__all__ = ["PRESETS", "Inpainter", "Job", "MMInvertFill", "ModelConfig", "__version__", "from_preset"]

_HOMES = {
    "Inpainter": "mmif.inpaint",
    "Job": "mmif.inpaint",
    "MMInvertFill": "mmif.model",
    "ModelConfig": "mmif.config",
    "PRESETS": "mmif.config",
    "from_preset": "mmif.config",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    """Version of the installed distribution; a checkout that was never installed has none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mminvertfill")
    except PackageNotFoundError:
        return "0+not-installed"
