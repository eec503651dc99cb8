"""The extension's CPU bodies against the PyTorch references, forward and backward, on shapes of the presets.

Each pair is checked first: a row whose bodies disagree says INVALID and no time.

Usage: python benchmarks/ops_cpu.py [--samples 30] [--budget 20] [--threads 2]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from timing import compare, save, table
from torch import Tensor

from mmif.ops import dispatch, setup_filter, upfirdn2d
from mmif.ops.bias_act import ACTIVATIONS, bias_act_ref

Call = Callable[[Tensor, str], Tensor]
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def cases() -> Iterator[tuple[str, tuple[int, ...], torch.dtype, Call]]:
    """Name, shape and dtype of the input, and the call of every row."""
    f, long = setup_filter([1, 3, 3, 1]), setup_filter([1.0] * 12)

    def up(x: Tensor, backend: str) -> Tensor:
        return upfirdn2d(x, f, up=2, padding=(2, 1, 2, 1), gain=4, backend=backend)

    def blur(x: Tensor, backend: str) -> Tensor:
        return upfirdn2d(x, f, padding=1, backend=backend)

    for c, size in ((16, 128), (64, 64), (128, 128)):
        yield "bias_act lrelu", (1, c, size, size), torch.float32, activation("lrelu")
        yield "upfirdn2d up 2", (1, c, size, size), torch.float32, up
        yield "upfirdn2d blur", (1, c, size + 1, size + 1), torch.float32, blur
        yield (
            "upfirdn2d down 2",
            (1, c, size, size),
            torch.float32,
            lambda x, b: upfirdn2d(x, f, down=2, padding=1, backend=b),
        )
    yield "upfirdn2d 12 taps", (1, 64, 64, 64), torch.float32, lambda x, b: upfirdn2d(x, long, padding=6, backend=b)
    # Where PyTorch wins, and auto leaves the work to it.
    yield "bias_act swish", (1, 64, 64, 64), torch.float32, activation("swish")
    for dtype in (torch.float16, torch.bfloat16):
        yield "bias_act lrelu", (1, 64, 64, 64), dtype, activation("lrelu")
        yield "upfirdn2d up 2", (1, 64, 64, 64), dtype, up
        yield "upfirdn2d blur", (1, 64, 65, 65), dtype, blur


def activation(act: str) -> Call:
    """bias_act; the compiled body by its own name, since the public function turns slow cases down."""
    spec = ACTIVATIONS[act]

    def call(x: Tensor, backend: str) -> Tensor:
        b = x[0, :, 0, 0].detach()
        body = torch.ops.mmif.bias_act if backend == "cpu" else bias_act_ref
        return body(x, b, 1, act, spec.alpha, spec.gain, 256.0)

    return call


def forward_of(call: Call, x: Tensor, backend: str) -> Callable[[], Tensor]:
    """One forward call without a graph."""

    def run() -> Tensor:
        with torch.inference_mode():
            return call(x, backend)

    return run


def training_of(call: Call, x: Tensor, backend: str) -> Callable[[], Tensor]:
    """One forward and backward call; returns the gradient of the input."""
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()

    def run() -> Tensor:
        (grad,) = torch.autograd.grad(call(leaf, backend).sum(), leaf)
        return grad

    return run


def measure_row(
    name: str, x: Tensor, call: Call, layout: str, make: Callable[..., Callable[[], Tensor]], **options
) -> dict:
    """One row: median times in ms, their ratio, the spread of the compiled body."""
    runs = {backend: make(call, x, backend) for backend in ("reference", "cpu")}
    row = {
        "op": name,
        "shape": "x".join(map(str, x.shape)),
        "layout": layout,
        "dtype": str(x.dtype).removeprefix("torch."),
    }
    row["pass"] = "forward" if make is forward_of else "forward + backward"
    if not torch.allclose(runs["reference"](), runs["cpu"](), rtol=TOLERANCE[x.dtype], atol=TOLERANCE[x.dtype]):
        return row | {"reference_ms": "INVALID", "cpu_ms": "INVALID", "ratio": "INVALID", "cpu_p20_p80_ms": ""}
    times = compare(runs, warmup_s=0.1, **options)
    ours, theirs = times["cpu"], times["reference"]
    return row | {
        "reference_ms": round(theirs.median_ms, 3),
        "cpu_ms": round(ours.median_ms, 3),
        "ratio": round(theirs.median_ms / ours.median_ms, 2),
        "cpu_p20_p80_ms": f"{ours.p20_ms:.3f} - {ours.p80_ms:.3f}",
    }


def main() -> None:
    """Measure, print the table, save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--budget", type=float, default=5.0, help="seconds for one row")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    dispatch.require("cpu")
    torch.set_num_threads(args.threads)
    rows = []
    for name, shape, dtype, call in cases():
        for layout in ("contiguous", "channels_last"):
            x = torch.randn(shape).to(dtype)
            x = x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x
            for make in (forward_of, training_of):
                options = {"samples": args.samples, "budget_s": args.budget}
                rows.append(measure_row(name, x, call, layout, make, **options))
                print(rows[-1], flush=True)
    print(table(rows))
    print(save("ops-cpu", {"threads": args.threads}, rows))


if __name__ == "__main__":
    main()
