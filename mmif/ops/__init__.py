"""The ops that MMIF accelerates.

Each file says everything about an op: the public function, its plain-PyTorch reference, its registration with
torch.library, and what each backend can take. Compiled code elsewhere only replaces the body.
"""

from mmif.ops import _extension
from mmif.ops._epilogue import ToRGB
from mmif.ops.acb_fusion import acb_fusion, acb_fusion_code
from mmif.ops.adaptive_norm import adaptive_norm
from mmif.ops.bias_act import bias_act
from mmif.ops.conv_epilogue import conv_epilogue, fuses_epilogue
from mmif.ops.demodulate import demodulate
from mmif.ops.gated_mask_attention import gated_mask_attention
from mmif.ops.gated_residual import gated_residual
from mmif.ops.modulated_conv2d import modulated_conv2d
from mmif.ops.narrow_conv3x3 import narrow_conv3x3
from mmif.ops.upfirdn2d import setup_filter, upfirdn2d

__all__ = [
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
]

_extension.load()
