"""How a kernel is run: the configurations are measured once for a device, an op and a shape, then remembered.

:func:`run` is the one door (``choose.py``), ``measure.py`` compares and times, ``store.py`` remembers.
"""

from .choose import MAX_CONFIGS, Specimen, capability, chosen, forced, run, verdict
from .store import Config, Key

__all__ = ["MAX_CONFIGS", "Config", "Key", "Specimen", "capability", "chosen", "forced", "run", "verdict"]
