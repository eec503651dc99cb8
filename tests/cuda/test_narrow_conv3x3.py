"""The narrow convolution on tensor cores, whose fragments only a GPU lays out."""

import pytest
import torch
from ops.test_narrow_conv3x3 import arguments, flat
from tolerances import assert_close_to_reference
from torch import Tensor

from mmif.ops.narrow_conv3x3 import narrow_conv3x3_ref

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("channels", [(16, 16), (32, 64), (64, 32), (48, 48), (64, 64)], ids=str)
@pytest.mark.parametrize("size", [(2, 34, 66), (1, 128, 128), (3, 2, 2)], ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("rgb_only", [False, True], ids=["", "rgb_only"])
def test_equals_the_reference(size, channels, dtype, rgb_only):
    args = flat(arguments(*size, *channels, dtype), rgb_only=rgb_only)
    args = tuple(v.cuda() if isinstance(v, Tensor) else v for v in args)
    out = torch.ops.mmif.narrow_conv3x3(*args)
    assert_close_to_reference(out, narrow_conv3x3_ref, args, op="narrow_conv3x3", dtype=dtype)
