"""Fill holes in photographs of any size."""

from mmif.inpaint.inpainter import Inpainter
from mmif.inpaint.request import Job, Result

__all__ = ["Inpainter", "Job", "Result"]
