"""Swapping the ops of stand-in networks, written in the call style of both code bases, and undoing it."""

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from stylegan_oracles import FIR, assert_equal, images, modulated, resampled
from torch import nn

from mmif.compat import stylegan
from mmif.compat.stylegan import bias_act, patch


def load(name, source, **names):
    """Make a module of ``source``, whose functions have it as their globals, as a file or a pickle would."""
    module = ModuleType(name)
    vars(module).update(names)
    exec(source, vars(module))
    return module


def noted(function, calls):
    """Return ``function`` with a note of each call."""

    def call(*arguments):
        calls.append(function.__name__)
        return function(*arguments)

    return call


def slow_bias_act(x, clamp):
    return (2**0.5 * F.leaky_relu(x, 0.2)).clamp(-clamp, clamp)


def slow_upfirdn2d(x, f, up, pads, gain):
    return torch.from_numpy(resampled(x.numpy(), f, (up, up), pads=pads, gain=gain))


def slow_modulated_conv2d(x, weight, styles, padding):
    arrays = (t.numpy() for t in (x, weight, styles))
    return torch.from_numpy(modulated(*arrays, None, 1, 1, (padding,) * 4, True, True))


def slow_fused_leaky_relu(x, bias):
    x = x if bias is None else x + bias[:, None, None]
    return 2**0.5 * F.leaky_relu(x, 0.2)


@pytest.fixture
def calls():
    return []


@pytest.fixture
def nvlabs(calls):
    """Return (network, ops): modules named as in NVlabs' repositories, one profiling decorator, one pickled source."""
    ops = ModuleType("torch_utils.ops")
    ops.bias_act = load(
        "torch_utils.ops.bias_act",
        "def bias_act(x, b=None, dim=1, act='linear', alpha=None, gain=None, clamp=None, impl='cuda'):\n"
        "    return slow(x, clamp)\n",
        slow=noted(slow_bias_act, calls),
    )
    ops.upfirdn2d = load(
        "torch_utils.ops.upfirdn2d",
        "def upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl='cuda'):\n"
        "    return slow(x, f, up, padding, gain)\n"
        "def upsample2d(x, f, up=2, padding=0, flip_filter=False, gain=1, impl='cuda'):\n"
        "    return upfirdn2d(x, f, up=up, padding=[2, 1, 2, 1], gain=gain * up * up)\n",
        slow=noted(slow_upfirdn2d, calls),
    )
    networks = load(
        "_imported_module_0123",
        "def profiled(function):\n"
        "    def decorator(*args, **kwargs):\n"
        "        return function(*args, **kwargs)\n"
        "    decorator.__name__ = function.__name__\n"
        "    return decorator\n"
        "@profiled\n"
        "def modulated_conv2d(x, weight, styles, noise=None, up=1, down=1, padding=0, resample_filter=None,\n"
        "                     demodulate=True, flip_weight=True, fused_modconv=True):\n"
        "    return slow(x, weight, styles, padding)\n"
        "class Layer(nn.Module):\n"
        "    def forward(self, x, w, s, f):\n"
        "        x = modulated_conv2d(x=x, weight=w, styles=s, padding=1, fused_modconv=False)\n"
        "        x = upfirdn2d.upsample2d(x=x, f=f)\n"
        "        return bias_act.bias_act(x, act='lrelu', clamp=1)\n"
        "class Network(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = Layer()\n"
        "    def forward(self, *inputs):\n"
        "        return self.layer(*inputs)\n",
        nn=nn,
        upfirdn2d=ops.upfirdn2d,
        bias_act=ops.bias_act,
        slow=noted(slow_modulated_conv2d, calls),
    )
    return networks.Network(), ops


def nvlabs_inputs():
    return images(2, 3, 4, 4), images(3, 3, 3, 3), images(2, 3), FIR


NVLABS_CALLS = ["slow_modulated_conv2d", "slow_upfirdn2d", "slow_bias_act"]


def test_patch_swaps_nvlabs_ops_and_undo_restores_them(nvlabs, calls):
    network, ops = nvlabs
    inputs = nvlabs_inputs()
    expected = network(*inputs)
    assert calls == NVLABS_CALLS
    calls.clear()

    handle = patch(network)
    assert_equal(network(*inputs), expected)
    assert calls == []
    assert set(handle.replaced) == {
        "_imported_module_0123.modulated_conv2d",
        "torch_utils.ops.bias_act.bias_act",
        "torch_utils.ops.upfirdn2d.upfirdn2d",
        "torch_utils.ops.upfirdn2d.upsample2d",
    }
    assert str(handle).splitlines() == [f"replaced {name}" for name in handle.replaced]
    assert ops.bias_act.bias_act is bias_act

    for _ in range(2):
        handle.undo()
        assert torch.equal(network(*inputs), expected)
        assert calls == NVLABS_CALLS
        calls.clear()


def test_patch_as_a_context_also_undoes_after_an_error(nvlabs, calls):
    network, _ = nvlabs
    with pytest.raises(TypeError), patch(network):
        network("too few inputs")
    network(*nvlabs_inputs())
    assert calls == NVLABS_CALLS


def test_a_second_patch_replaces_nothing_and_undoes_nothing(nvlabs, calls):
    network, _ = nvlabs
    with patch(network):
        with patch(nn.Sequential(network)) as second:
            assert second.replaced == ()
        network(*nvlabs_inputs())
    assert calls == []


def test_patch_reaches_the_class_below_a_decorator_of_classes(nvlabs):
    """A persistent class is a subclass made elsewhere: the code lies in the class below."""
    network, _ = nvlabs
    persistent = type("Persistent", (type(network.layer),), {"__module__": "torch_utils.persistence"})
    with patch(nn.Sequential(persistent())) as handle:
        assert "_imported_module_0123.modulated_conv2d" in handle.replaced


def test_other_parameters_are_left_alone(nvlabs, calls):
    """StyleGAN3's modulated_conv2d has the name of StyleGAN2's and other semantics."""
    network, _ = nvlabs
    sg3 = load(
        "sg3",
        "def modulated_conv2d(x, w, s, demodulate=True, padding=0, input_gain=None):\n    return x\n"
        "class Layer(nn.Module):\n    def forward(self, x):\n        return modulated_conv2d(x, None, None)\n",
        nn=nn,
    )
    before = sg3.modulated_conv2d
    with patch(nn.ModuleList([network, sg3.Layer()])) as handle:
        assert sg3.modulated_conv2d is before
        assert handle.left == ("sg3.modulated_conv2d(x, w, s, demodulate, padding, input_gain)",)
        assert str(handle).endswith(f"left {handle.left[0]}: other parameters")
    with pytest.raises(
        ValueError, match=r"^patch: the code of Layer must use one of bias_act, .*, got sg3\.modulated_"
    ):
        patch(sg3.Layer())


@pytest.fixture
def rosinality_network(calls):
    fused_act = load(
        "op.fused_act",
        "def fused_leaky_relu(input, bias=None, negative_slope=0.2, scale=2 ** 0.5):\n"
        "    return slow(input, bias)\n"
        "class FusedLeakyReLU(nn.Module):\n"
        "    def __init__(self, channel):\n"
        "        super().__init__()\n"
        "        self.bias = nn.Parameter(torch.ones(channel))\n"
        "    def forward(self, input):\n"
        "        return fused_leaky_relu(input, self.bias)\n",
        nn=nn,
        torch=torch,
        slow=noted(slow_fused_leaky_relu, calls),
    )
    op = load(
        "op.upfirdn2d",
        "def upfirdn2d(input, kernel, up=1, down=1, pad=(0, 0)):\n"
        "    return slow(input, kernel, up, (*pad, *pad), 1)\n",
        slow=noted(slow_upfirdn2d, calls),
    )
    model = load(
        "model",
        "class Blur(nn.Module):\n"
        "    def __init__(self, kernel):\n"
        "        super().__init__()\n"
        "        self.register_buffer('kernel', kernel)\n"
        "    def forward(self, input):\n"
        "        return upfirdn2d(input, self.kernel, pad=(2, 1))\n"
        "class Linear(nn.Module):\n"
        "    def forward(self, input):\n"
        "        return fused_leaky_relu(input)\n"
        "class Network(nn.Sequential):\n"
        "    def __init__(self, kernel):\n"
        "        super().__init__(Blur(kernel), FusedLeakyReLU(3), Linear())\n",
        nn=nn,
        upfirdn2d=op.upfirdn2d,
        fused_leaky_relu=fused_act.fused_leaky_relu,
        FusedLeakyReLU=fused_act.FusedLeakyReLU,
    )
    return model.Network(FIR)


ROSINALITY_CALLS = ["slow_upfirdn2d", "slow_fused_leaky_relu", "slow_fused_leaky_relu"]


def test_patch_swaps_rosinality_ops(rosinality_network, calls):
    network, x = rosinality_network.double().requires_grad_(False), images()
    expected = network(x)
    assert calls == ROSINALITY_CALLS
    calls.clear()
    with patch(network) as handle:
        assert_equal(network(x), expected)
    assert calls == []
    assert set(handle.replaced) == {"model.upfirdn2d", "model.fused_leaky_relu", "op.fused_act.fused_leaky_relu"}
    network(x)
    assert calls == ROSINALITY_CALLS


def test_training_goes_on_through_a_patched_network(rosinality_network):
    x = images().float().requires_grad_()
    with patch(rosinality_network):
        (dx,) = torch.autograd.grad(rosinality_network(x).square().sum(), x, create_graph=True)
        dx.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


@pytest.mark.parametrize(
    "network", [nn.Sequential(nn.Linear(2, 2)), stylegan.FusedLeakyReLU(2)], ids=["torch_only", "ours_already"]
)
def test_a_network_without_the_ops_is_refused(network):
    with pytest.raises(ValueError, match=r"^patch: the code of .* must use one of .*, got none of them; load the net"):
        patch(network)
