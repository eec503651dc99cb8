"""Every kernel as far as a launch: bound, specialised and compiled from the arguments that the ops really pass."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmif import kernels

pytestmark = pytest.mark.triton


def kernels_with_specimens() -> set[str]:
    found = pkgutil.walk_packages(kernels.__path__, "mmif.kernels.")
    modules = [importlib.import_module(each.name) for each in found]
    makers = [module.specimens for module in modules if hasattr(module, "specimens")]
    return {specimen.fn.__name__ for make in makers for specimen in make(90)}


def test_every_kernel_is_bound_as_the_ops_launch_it():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("dry_run.py")
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(done.stdout.split()) == kernels_with_specimens()
