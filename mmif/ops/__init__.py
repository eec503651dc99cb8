"""The ops that MMIF accelerates.

Each file holds the public function, its plain-PyTorch reference and its registration with torch.library; compiled code
elsewhere only replaces the body.
"""

from mmif.ops.acb_fusion import acb_fusion
from mmif.ops.bias_act import bias_act
from mmif.ops.gated_mask_attention import gated_mask_attention
from mmif.ops.modulated_conv2d import modulated_conv2d
from mmif.ops.upfirdn2d import setup_filter, upfirdn2d

__all__ = ["acb_fusion", "bias_act", "gated_mask_attention", "modulated_conv2d", "setup_filter", "upfirdn2d"]
