"""The public functions in whole graphs: under torch.compile, and exported without a node of our own."""

import inspect

import pytest
import torch
from torch import nn

from mmif import ops
from mmif.ops import selftest

FIR = ops.setup_filter([1, 3, 3, 1])


class AllOps(nn.Module):
    """Each of the five ops once."""

    def __init__(self):
        super().__init__()
        shapes = {"weight": (4, 4, 3, 3), "paths": (2, 4, 4, 3, 3), "fuse": (4, 12, 3, 3), "fc": (4, 4)}
        self.weights = nn.ParameterDict({name: 0.3 * torch.randn(shape) for name, shape in shapes.items()})
        self.register_buffer("fir", FIR)

    def forward(self, x, styles):
        w, bias = self.weights, x.new_zeros(4)
        x = ops.modulated_conv2d(x, w["weight"], styles, up=2, resample_filter=self.fir)
        x = ops.bias_act(x, bias, act="lrelu", clamp=256)
        x = ops.upfirdn2d(x, self.fir, down=2, padding=1)
        x = ops.gated_mask_attention(x, x, x, torch.sigmoid(x[:, :2]), patch_sizes=(1, 2))
        gates = torch.cat([x, x], 1)
        return ops.acb_fusion(x, gates, w["paths"], bias.expand(2, 4), w["fuse"], bias, w["fc"], bias, dilations=(1, 2))


def inputs(batch=2):
    return torch.randn(batch, 4, 4, 4), torch.randn(batch, 4)


def nodes_of_ours(graph):
    return [node.target for node in graph.nodes if "mmif" in str(node.target)]


def gradients(model, args):
    return torch.autograd.grad(model(*args).square().sum(), list(model.parameters()))


@pytest.mark.parametrize("backend", ["reference", "registered"])
def test_compiles_whole(backend, request):
    model, args = AllOps(), inputs()
    expected = gradients(model, args)
    if backend == "registered":
        request.getfixturevalue("registered")
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for got, want in zip(gradients(compiled, args), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_a_compiled_graph_holds_the_registered_ops(registered):
    graphs = []

    def keep(module, _):
        graphs.append(module.graph)
        return module

    torch.compiler.reset()
    torch.compile(AllOps(), fullgraph=True, backend=keep)(*inputs())
    found = " ".join(map(str, nodes_of_ours(graphs[0])))
    for op in ("modulated_conv2d", "bias_act", "upfirdn2d", "gated_mask_attention", "acb_paths", "acb_pool", "acb_mix"):
        assert f"mmif.{op}" in found


@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
def test_an_exported_graph_holds_standard_operators_only(registered, strict):
    model, batch = AllOps(), torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, inputs(), dynamic_shapes=({0: batch}, {0: batch}), strict=strict)
    assert not nodes_of_ours(program.graph)
    args = inputs(3)
    torch.testing.assert_close(program.module()(*args), model(*args), rtol=1e-4, atol=1e-4)


def test_every_op_has_an_example_that_mmif_doctor_runs():
    serving, problems = selftest.run("cpu")
    functions = {name: getattr(ops, name) for name in ops.__all__}
    dispatched = {name for name, op in functions.items() if "backend" in inspect.signature(op).parameters}
    assert serving.keys() == dispatched
    assert problems == []
