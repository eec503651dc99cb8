"""The names of ``conv2d_gradfix`` in both code bases: torch's own convolutions, which differentiate to any order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn.functional import conv2d, conv_transpose2d

__all__ = ["conv2d", "conv_transpose2d", "no_weight_gradients"]


@contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    """Do nothing: torch does not compute a convolution's weight gradient where ``autograd.grad`` asks for the input's.

    Code written for older versions of torch wraps that call in this context to save it. What differs: ``backward()``
    inside the context accumulates the gradients of the weights as anywhere else.
    """
    yield
