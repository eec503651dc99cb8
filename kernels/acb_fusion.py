"""The Triton bodies of the adaptive contextual bottleneck's ops; each kernel is in a file of its own."""

from __future__ import annotations

from .acb_mix import mix, mix_bwd
from .acb_paths import blend, paths
from .acb_paths_bwd import paths_data_gradient
from .acb_pool import pool

__all__ = ["blend", "mix", "mix_bwd", "paths", "paths_data_gradient", "pool"]
