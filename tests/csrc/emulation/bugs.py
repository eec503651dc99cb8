"""Bugs to plant in csrc/, and how each must show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """A wrong edit of one source: ``old``, which it holds exactly once, becomes ``new``."""

    source: str
    old: str
    new: str
    select: str  # the tests of tests/ops/test_registration.py that must find it, as pytest -k takes them
    shows: str = r"AssertionError: \w+ torch\.\w+ \w+ \d: "  # what the output must match; this: a number is wrong
    sanitize: bool = False


_MEMORY = r"ERROR: AddressSanitizer: {}-buffer-overflow[\s\S]*#\d+ \w+ in {}<"
_HALO = ("is_inside(first + i, p.rows)", "is_inside(first + i - 1, p.rows)")

BUGS = {
    "bias_act_planes_without_barrier": Bug(
        "bias_act.cu",
        "scratch[threadIdx.x / 32] = value;\n  __syncthreads();\n",
        "scratch[threadIdx.x / 32] = value;\n",
        "gradients and bias_act-lrelu-contiguous-float32",
    ),
    "bias_act_rows_without_barrier": Bug(
        "bias_act.cu",
        "sums[warp][lane * V + k] = sum[k];\n  __syncthreads();\n",
        "sums[warp][lane * V + k] = sum[k];\n",
        "gradients and bias_act-lrelu-channels_last-float32",
    ),
    "bias_act_reads_one_too_many": Bug(
        "bias_act.cu",
        "if (i < vectors) in[u] =",
        "if (i <= vectors) in[u] =",
        "forward and bias_act-lrelu-contiguous-float32",
        _MEMORY.format("heap", "bias_act_kernel"),
        sanitize=True,
    ),
    "bias_act_leaves_its_shared_memory": Bug(
        "bias_act.cu",
        "scratch[threadIdx.x / 32] = value;",
        "scratch[threadIdx.x / 16] = value;",
        "gradients and bias_act-lrelu-contiguous-float32",
        _MEMORY.format("global", "reduce_planes_kernel"),
        sanitize=True,
    ),
    "upfirdn2d_general_one_tap_too_few": Bug(
        "upfirdn2d.cu",
        "k < down.count;",
        "k < down.count - 1;",
        "forward and upfirdn2d-down2_crop and float32",
    ),
    "narrow_conv_without_barrier": Bug(
        "narrow_conv3x3.cu",
        "wait_for_copies();\n      __syncthreads();",
        "wait_for_copies();",
        "forward and narrow_conv3x3-layer-contiguous-float16",
    ),
    "narrow_conv_does_not_wait_for_copies": Bug(
        "narrow_conv3x3.cu",
        "      wait_for_copies();\n",
        "",
        "forward and narrow_conv3x3-layer-contiguous-float16",
    ),
    "narrow_conv_halo_off_by_one": Bug(
        "narrow_conv3x3.cu",
        "x0 - 1 + pixel % kHalo",
        "x0 + pixel % kHalo",
        "forward and narrow_conv3x3-layer-contiguous-float16",
    ),
    "narrow_conv_reads_beyond_the_image": Bug(
        "narrow_conv3x3.cu",
        "static_cast<unsigned>(row) < static_cast<unsigned>(height)",
        "static_cast<unsigned>(row) <= static_cast<unsigned>(height)",
        "forward and narrow_conv3x3-layer-contiguous-float16",
        _MEMORY.format("heap", "narrow_conv_kernel"),
        sanitize=True,
    ),
    "fir_nchw_without_barrier": Bug(
        "fir_nchw.h", "__syncthreads();\n", "\n", "forward and upfirdn2d-up2-contiguous-float32"
    ),
    "fir_nchw_halo_off_by_one": Bug("fir_nchw.h", *_HALO, "forward and upfirdn2d-up2-contiguous-float32"),
    "fir_nchw_reads_beyond_the_image": Bug(
        "fir_nchw.h",
        *_HALO,
        "forward and upfirdn2d-up2-contiguous-float32",
        _MEMORY.format("heap", "fir_nchw_kernel"),
        sanitize=True,
    ),
    "fir_nhwc_without_barrier": Bug(
        "fir_nhwc.h", "__syncthreads();\n", "\n", "forward and conv_epilogue-up_layer and float32"
    ),
    "fir_nhwc_halo_off_by_one": Bug(
        "fir_nhwc.h",
        "is_inside(x, p.cols)",
        "is_inside(x + 1, p.cols)",
        "forward and conv_epilogue-up_layer and float32",
    ),
}
