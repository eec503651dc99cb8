"""Arguments that other inpainting pipelines take, diffusers' above all, and what to pass here instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

_NO_TEXT = "nothing is made from text here; leave it out"
_ONE_PASS = "the network runs once and starts from the photograph; leave it out"
_INSTEAD = {
    "prompt": _NO_TEXT,
    "prompt_2": _NO_TEXT,
    "negative_prompt": _NO_TEXT,
    "prompt_embeds": _NO_TEXT,
    "guidance_scale": _NO_TEXT,
    "strength": _ONE_PASS,
    "num_inference_steps": _ONE_PASS,
    "timesteps": _ONE_PASS,
    "eta": _ONE_PASS,
    "latents": _ONE_PASS,
    "generator": "pass seed, a whole number: the same seed gives the same picture",
    "num_images_per_prompt": "pass num_samples",
    "padding_mask_crop": "squares round the holes are cut anyway; Inpainter(..., margin=) says how wide",
    "height": "a result has the size of its photograph; leave it out",
    "width": "a result has the size of its photograph; leave it out",
    "output_type": "result.images are PIL images; leave it out",
    "return_dict": "the call always returns a Result; leave it out",
}


def refuse(name: str, known: Sequence[str]) -> NoReturn:
    """Refuse an argument that is none of the ``known``, one of other pipelines with a word on what to do.

    Raises:
        TypeError: always.
    """
    if name in _INSTEAD:
        raise TypeError(f"{name} is an argument of other pipelines: {_INSTEAD[name]}")
    raise TypeError(f"unknown argument {name!r}; known are {', '.join(known)}")
