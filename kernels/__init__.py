"""Triton kernels behind the registered ops of ``mmif.ops``: nobody else calls them.

A file holds kernels, the configurations they are tried in, and the functions that launch them;
:mod:`mmif.kernels.tuning` measures and remembers. Importing a kernel's module imports Triton.
"""
