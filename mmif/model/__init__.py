"""The MMInvertFill network; :class:`MMInvertFill` assembles it, each other module is one part of the paper."""

from mmif.model.mminvertfill import MMInvertFill, Output

__all__ = ["MMInvertFill", "Output"]
