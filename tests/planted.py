"""Errors to plant in kernels/, and the test that must find each."""

from __future__ import annotations

from typing import NamedTuple


class Error(NamedTuple):
    """A wrong edit of one source: ``old``, which it holds exactly once, becomes ``new``."""

    source: str
    old: str
    new: str
    test: str  # in tests/kernels, as pytest takes it: test_adaptive_norm.py::test_forward[...]


PLANTED = [
    Error(
        "adaptive_norm.py",
        "rest = tl.where(mask, x - mean, 0.0)",
        "rest = x - mean",
        "test_neighbours.py::test_no_digits_are_lost_to_a_large_mean[1000.0-one_block]",
    ),
    Error(
        "adaptive_norm.py",
        "count = tl.minimum(size - chunk * CHUNK, CHUNK).to(tl.float32)",
        "count = tl.full((), CHUNK, tl.float32)",
        "test_neighbours.py::test_equals_the_reference[float32-1x17x241-norm]",
    ),
    Error(
        "adaptive_norm.py",
        " + tl.sum(count * (rest - offset) * (rest - offset))",
        "",
        "test_neighbours.py::test_chunks_of_different_means[chunks]",
    ),
    Error(
        "adaptive_norm.py",
        " - norm * (along / size)",
        "",
        "test_neighbours.py::test_equals_the_reference[float32-3x5x7x11-norm]",
    ),
    Error(
        "adaptive_norm.py",
        "offset += tl.load(shift + i",
        "offset += tl.load(beta + i",
        "test_neighbours.py::test_equals_the_reference[float32-3x5x7x11-norm_two_offsets]",
    ),
    Error(
        "gated_residual.py",
        "(1 - opening)",
        "opening",
        "test_neighbours.py::test_equals_the_reference[float32-3x5x7x11-gated]",
    ),
    Error(
        "acb/conv3x3.py",
        "return size - 1 - tl.abs(size - 1 - i)",
        "return size - tl.abs(size - i)",
        "test_acb_fusion.py::test_equals_reference[fp32-2x2-acb_blend]",
    ),
    Error(
        "acb/conv3x3.py",
        "(xx >= 0) & (xx < W)",
        "(xx >= 0) & (xx <= W)",
        "test_acb_fusion.py::test_equals_reference[fp32-5x7-acb_pool]",
    ),
    Error(
        "acb/pool.py",
        "tl.min(tl.where(hit, positions, 2**31 - 1), axis=0)",
        "tl.max(tl.where(hit, positions, -1), axis=0)",
        "test_acb_fusion.py::test_of_equal_maxima_the_first_counts",
    ),
    Error(
        "acb/pool.py",
        "tl.sum(tl.where(there, z, 0.0), axis=0)",
        "tl.sum(z, axis=0)",
        "test_acb_fusion.py::test_equals_reference[fp32-5x7-acb_pool]",
    ),
    Error(
        "acb/mix.py",
        "dweights - tl.sum(weights * dweights, axis=0)[None, :]",
        "dweights",
        "test_acb_fusion.py::test_equals_reference[fp32-5x7-acb_mix]",
    ),
    Error(
        "acb/paths_bwd.py",
        "(u > 0) & (place >= 0)",
        "(place >= 0)",
        "test_acb_fusion.py::test_equals_reference[fp32-2x2-acb_paths]",
    ),
    Error(
        "acb/paths.py",
        "x + g * (mixed - x)",
        "x + g * mixed",
        "test_acb_fusion.py::test_equals_reference[fp32-2x2-acb_blend]",
    ),
    Error(
        "attention/fwd.py",
        "sums * rescale[:, None]",
        "sums",
        "test_gated_mask_attention.py::test_equals_the_reference[none-many_tokens]",
    ),
    Error(
        "attention/fwd.py",
        "scores = tl.where((keys < HEAD.tokens)[None], scores, -INF)",
        "scores = scores + 0.0",
        "test_gated_mask_attention.py::test_equals_the_reference[none-two]",
    ),
    Error(
        "attention/patches.py",
        "return (total / (P * P))[None]",
        "return total[None]",
        "test_gated_mask_attention.py::test_equals_the_reference[post-two]",
    ),
    Error(
        "attention/patches.py",
        "(tokens // COLUMNS) * (HEAD.patch * strides[2])",
        "(tokens // COLUMNS) * strides[2]",
        "test_gated_mask_attention.py::test_equals_the_reference[none-two]",
    ),
    Error(
        "attention/bwd_queries.py",
        "soft * (g * dp - delta)",
        "soft * (dp - delta)",
        "test_gated_mask_attention.py::test_equals_the_reference[post-two]",
    ),
    Error(
        "attention/bwd_queries.py",
        "tl.minimum(scores, top) - lse",
        "scores - lse",
        "test_gated_mask_attention.py::test_closed_keys_count_for_nothing_in_mode_log[many_tokens]",
    ),
    Error(
        "attention/patches.py",
        "start = block % HEAD.splits",
        "start = 0",
        "test_gated_mask_attention.py::test_every_configuration[wide-1]",
    ),
]
