"""Whole generators and discriminators of both code bases, patched, train as they did before."""

import copy

import pytest
import torch
import torch.nn.functional as F
from compat import nvlabs_networks, rosinality_networks, slow_ops
from stylegan_oracles import FIR, MATRIX, assert_equal, convolved, images, modulated, resampled

from mmif.compat.stylegan import patch

NETWORKS = {
    **{
        f"nvlabs-{g}-{d}-clamp{clamp}": (
            lambda g=g, clamp=clamp: nvlabs_networks.Generator(g, clamp=clamp),
            lambda d=d, clamp=clamp: nvlabs_networks.Discriminator(d, clamp=clamp),
        )
        for g, d, clamp in [
            ("skip", "resnet", 256),  # the configurations of the papers
            ("skip", "resnet", 0.7),  # a clamp that is reached
            ("resnet", "skip", 256),
            ("orig", "orig", None),
        ]
    },
    "rosinality": (rosinality_networks.Generator, rosinality_networks.Discriminator),
}
SWAPPED = {
    "nvlabs": {
        "compat.nvlabs_networks.modulated_conv2d",
        *(f"compat.slow_ops.{op}" for op in ("bias_act", "upfirdn2d", "filter2d", "upsample2d", "downsample2d")),
        "compat.slow_ops.conv2d_resample",
    },
    "rosinality": {
        *(f"compat.rosinality_networks.{op}" for op in ("fused_leaky_relu", "upfirdn2d")),
        *(f"compat.slow_ops.{op}" for op in ("bias_act", "upfirdn2d", "filter2d", "upsample2d", "downsample2d")),
        "compat.slow_ops.conv2d_resample",
    },
}


@pytest.mark.parametrize("factors", [(1, 1), (2, 1), (1, 2)], ids=str)
def test_the_slow_ops_equal_the_oracles(factors):
    up, down = factors
    x, w, styles = images(2, 3, 4, 5), images(4, 3, 3, 3), images(2, 3)
    arrays = [t.numpy() for t in (x, w, styles)]
    assert_equal(
        slow_ops.upfirdn2d(x, MATRIX, up, down, (2, 1, 3, -1), True, 3.0),
        resampled(arrays[0], MATRIX, (up, up), (down, down), (2, 1, 3, -1), True, 3.0),
    )
    assert_equal(
        slow_ops.conv2d_resample(x, w, FIR, up, down, 1, flip_weight=False),
        convolved(arrays[0], arrays[1], FIR, up, down, (1, 1, 1, 1), flip_weight=False),
    )
    assert_equal(
        slow_ops.modulated(x, w, styles, None, up, down, 1, FIR, True, True),
        modulated(*arrays, FIR, up, down, (1, 1, 1, 1), True, True),
    )


def made(name):
    torch.manual_seed(0)
    return tuple(make().double() for make in NETWORKS[name])


Z_DIM = {nvlabs_networks.Generator: 6, rosinality_networks.Generator: 5}


def train_a_step(generator, discriminator):
    """One step of each, with the regularisers of StyleGAN2, which take second derivatives; what came of it, by name."""
    torch.manual_seed(1)
    z, c, real = images(2, Z_DIM[type(generator)]), images(2, 3), images(2, 3, 16, 16)
    steps = [torch.optim.SGD(network.parameters(), lr=0.01) for network in (generator, discriminator)]

    fake, ws = generator(z, c)
    direction = images(*fake.shape) / 16
    (length,) = torch.autograd.grad((fake * direction).sum(), ws, create_graph=True)
    loss = F.softplus(-discriminator(fake, c)).mean() + length.square().sum(-1).sqrt().mean()
    loss.backward()
    result = {"image": fake.detach()} | gradients("generator", generator)
    steps[0].step()

    steps[1].zero_grad()
    real.requires_grad_()
    logits = discriminator(real, c)
    (r1,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    with torch.no_grad():
        fake, _ = generator(z, c)
    loss = F.softplus(-logits).mean() + F.softplus(discriminator(fake, c)).mean() + r1.square().sum()
    loss.backward()
    result |= {"logits": logits.detach()} | gradients("discriminator", discriminator)
    steps[1].step()
    return result | {f"after {name}": p.detach() for name, p in discriminator.named_parameters()}


def gradients(prefix, network):
    return {f"{prefix} {name}": p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("bodies", ["auto", "registered"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_patched_network_trains_as_before(name, bodies, request):
    generator, discriminator = made(name)
    expected = train_a_step(copy.deepcopy(generator), copy.deepcopy(discriminator))
    assert all(t.abs().max() > 0 for key, t in expected.items() if key.startswith("after") and "bias" not in key)
    if bodies == "registered":
        request.getfixturevalue("registered")
    with patch(torch.nn.ModuleList([generator, discriminator])) as handle:
        assert set(handle.replaced) == SWAPPED[name.partition("-")[0]]
        found = train_a_step(generator, discriminator)
    assert found.keys() == expected.keys()
    for key, want in expected.items():
        torch.testing.assert_close(found[key], want, rtol=1e-9, atol=1e-11, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_patched_network_can_be_transformed(name):
    """torch.func and autograd give the same gradient of a loss."""
    generator = made(name)[0].eval()
    z, c = images(2, Z_DIM[type(generator)]).requires_grad_(), images(2, 3)
    with patch(generator):
        (expected,) = torch.autograd.grad(generator(z, c)[0].square().sum(), z)
        got = torch.func.grad(lambda z: generator(z, c)[0].square().sum())(z.detach())
    torch.testing.assert_close(got, expected)
