from collections.abc import Iterator

import pytest
import torch

from mmif import backends

PUBLIC = ("acb_fusion", "bias_act", "gated_mask_attention", "modulated_conv2d", "upfirdn2d")


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors here are tiny: on busy cores threads wait for each other far longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The public functions call the registered ops, as on a device that has compiled bodies for them."""
    monkeypatch.setattr(backends, "_bodies", {(op, "cuda"): backends.Body(lambda *_: None) for op in PUBLIC})
    monkeypatch.setattr(backends, "why_not", lambda _: None)
    with backends.use("cuda"):
        yield
