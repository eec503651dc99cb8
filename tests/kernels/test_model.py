"""The whole model with its Triton kernels is the model with the references: images, predictions, gradients."""

from __future__ import annotations

import pytest
import torch

from mmif.config import from_preset, with_overrides
from mmif.kernels import tuning
from mmif.model import MMInvertFill
from mmif.ops import dispatch

pytestmark = pytest.mark.triton

FORMS = {
    "paper": [],
    "released": ["encoder.acb_variant=code", "encoder.gma_gate=logit"],
    "renormalised": ["encoder.gma_gate=log", "encoder.acb_post=false"],
}


def build(form, device):
    torch.manual_seed(0)
    model = MMInvertFill(with_overrides(from_preset("tiny-32"), FORMS[form])).to(device)
    with torch.no_grad():
        for parameter in model.parameters():  # some start as zeros, which would hide what they are multiplied with
            parameter.add_(0.05 * torch.randn_like(parameter))
    side = model.config.resolution
    image, hole = torch.rand(2, 3, side, side, device=device) * 2 - 1, torch.zeros(2, 1, side, side, device=device)
    hole[:, :, 8:24, 4:20] = 1
    return model, image, hole, model.make_noise([(0, 0), (0, 1)])


def outputs(form, backend, device, training):
    """Image and predictions, and in training the gradient of every parameter of the encoder and the codes."""
    model, image, hole, noise = build(form, device)
    model.train(training)
    with dispatch.use(backend), torch.set_grad_enabled(training):
        out = model(image, hole, noise=noise)
        found = {"image": out.image, "codes": out.ws}
        if training:
            parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
            loss = out.image.square().mean() + out.ws.square().mean()
            grads = torch.autograd.grad(loss, parameters.values(), allow_unused=True)
            found |= {name: g for name, g in zip(parameters, grads, strict=True) if g is not None}
    return {name: t.detach() for name, t in found.items()}


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("form", FORMS)
def test_the_model_is_the_same(form, training, device):
    ours, expected = (outputs(form, backend, device, training) for backend in ("triton", "reference"))
    assert ours.keys() == expected.keys()
    assert not training or len(ours) > 100
    for name, want in expected.items():
        limit = 1e-4 * float(want.abs().max()) + 1e-7
        torch.testing.assert_close(ours[name], want, rtol=0, atol=limit, msg=lambda text, name=name: f"{name}: {text}")


def test_the_kernels_really_ran(monkeypatch, device):
    ran = set()
    for module in ("attention.fwd", "acb.paths", "acb.pool", "acb.mix", "adaptive_norm", "gated_residual"):
        run = tuning.run
        monkeypatch.setattr(f"mmif.kernels.{module}.run", lambda op, *args, run=run: ran.add(op) or run(op, *args))
    outputs("paper", "triton", device, training=False)
    assert ran == {"gated_mask_attention", "acb_paths", "acb_pool", "acb_mix", "adaptive_norm", "gated_residual"}
