"""Dense 3x3 convolutions with fewer multiplications, on channels-last maps; for inference."""

from ._conv import conv3x3, cpu_path

__all__ = ["conv3x3", "cpu_path"]
