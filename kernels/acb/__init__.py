"""Kernels of the adaptive contextual bottleneck: a file for each of its three steps, and the products they share."""
