"""Fill holes in photographs of any size."""

from mmif.inpaint.inpainter import Inpainter
from mmif.inpaint.request import Job
from mmif.inpaint.result import Result

__all__ = ["Inpainter", "Job", "Result"]
