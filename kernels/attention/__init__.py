"""Kernels of gated mask-aware attention: forward, backward, and what the two share."""
