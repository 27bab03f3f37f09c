"""What runs on this processor."""

from ._ops import ops


def cpu_path() -> str:
    """The instruction set that the operators run with on this processor: avx512, avx2 or portable.

    The environment variable `DETECTION_OPS_CPU_PATH` chooses a lesser one, for tests.

    Raises:
        RuntimeError: This is the build for another device.
    """
    if not hasattr(ops, "cpu_path"):
        raise RuntimeError("cpu_path: this build of the kernel is not for the CPU")
    return ops.cpu_path()
