"""The names that other people's code uses. A line leaves this file with a major version and a word in the changelog."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PUBLIC = {
    "mmif": {"PRESETS", "Inpainter", "Job", "MMInvertFill", "ModelConfig", "__version__", "from_preset"},
    "mmif.inpaint": {"Inpainter", "Job", "Result"},
    "mmif.model": {"MMInvertFill", "Output"},
    "mmif.ops": {
        "ToRGB",
        "acb_fusion",
        "acb_fusion_code",
        "adaptive_norm",
        "bias_act",
        "conv_epilogue",
        "demodulate",
        "fuses_epilogue",
        "gated_mask_attention",
        "gated_residual",
        "modulated_conv2d",
        "narrow_conv3x3",
        "setup_filter",
        "upfirdn2d",
    },
    "mmif.ops.dispatch": {"BackendUnavailable", "use"},
    "mmif.checkpoint": {"load", "save"},
    "mmif.compat.conv2d_gradfix": {"conv2d", "conv_transpose2d", "no_weight_gradients"},
    "mmif.compat.rosinality": {"FusedLeakyReLU", "conv2d_gradfix", "fused_leaky_relu", "upfirdn2d"},
    "mmif.compat.stylegan": {
        "FusedLeakyReLU",
        "bias_act",
        "conv2d_gradfix",
        "conv2d_resample",
        "downsample2d",
        "filter2d",
        "fused_leaky_relu",
        "modulated_conv2d",
        "patch",
        "rosinality",
        "setup_filter",
        "upfirdn2d",
        "upsample2d",
    },
}
COMMANDS = {"mmif-inpaint", "mmif-train", "mmif-eval", "mmif-data", "mmif-info", "mmif-doctor"}
PRESETS = {
    "celebahq-256",
    "celebahq-512",
    "cityscapes-256",
    "ost-256",
    "places2-256",
    "places2-512",
    "scenes-128",
    "tiny-32",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_still_there(module: str):
    found = importlib.import_module(module)
    assert [name for name in sorted(PUBLIC[module]) if not hasattr(found, name)] == []


@pytest.mark.parametrize("module", PUBLIC)
def test_a_module_announces_what_is_listed_here(module: str):
    """What is new is public from the day it stands in ``__all__``, and so it is listed here."""
    announced = getattr(importlib.import_module(module), "__all__", PUBLIC[module])
    assert set(announced) == PUBLIC[module]


def test_every_command_is_still_there():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts.keys() >= COMMANDS


def test_every_preset_is_still_there():
    from mmif import PRESETS as found

    assert found.keys() >= PRESETS
