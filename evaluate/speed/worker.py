"""Runs one contestant of a benchmark, in a process of its own, which `turns.Worker` starts by the path of this file.

So nothing is imported from beside: the Python that runs it may have another version of this package, and a process
that runs onnxruntime or OpenVINO does not load PyTorch, whose memory would count as theirs.

Each request is a line of JSON, and so is the answer to it.
"""

import ctypes
import gc
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path


class Torch:
    """A model in PyTorch.

    Args:
        file: A folder as `save_pretrained` writes it, or a pickled module, with weights of this dtype.
        mode: Key of `modes.MODES`.
        dtype: Of weights and images.
        device: "cpu" or "cuda".
        auto_class: What loads a folder.
        channels_last: Whether images are in this memory layout.
    """

    def __init__(self, file: str, mode: str, dtype: str, device: str, auto_class: str, channels_last: bool):
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # other contestants are compiled meanwhile
        import torch

        self.torch, self.device, self.dtype = torch, device, getattr(torch, dtype)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        model = self._load(Path(file), auto_class).to(device)
        self.parts = {"whole": model}
        if hasattr(model, "backbone"):
            self.parts["backbone"] = model.backbone
        if mode == "frozen":
            from torch._inductor import config

            config.freezing = True
            # oneDNN's layout in float32 too; it changes no number on processors without TF32 instructions
            torch.backends.mkldnn.matmul.fp32_precision = "tf32"
        if mode in ("compiled", "frozen"):
            # with free sizes, PyTorch 2.13 fails to freeze InternImage in bfloat16
            self.parts["whole"] = torch.compile(model, fullgraph=True, dynamic=mode == "compiled")

    def _load(self, path: Path, auto_class: str):
        if path.is_file():
            return self.torch.load(path, weights_only=False)
        import transformers

        import hf_models  # noqa: F401 (registers the families)

        transformers.logging.disable_progress_bar()
        return getattr(transformers, auto_class).from_pretrained(path, dtype=self.dtype).eval()

    def prepare(self, images, threads: int, valid: list[int] | None = None) -> None:
        self.torch.set_num_threads(threads)
        images = self.torch.from_numpy(images).to(self.device, self.dtype).contiguous(memory_format=self.layout)
        self.inputs = {"whole": (images,), "backbone": (images,)}
        if valid:  # the part of the images that is not padding
            mask = self.torch.zeros(len(images), *images.shape[2:], device=self.device)
            mask[:, : valid[0], : valid[1]] = 1
            self.inputs["whole"] = images, mask

    def run(self, part: str):
        with self.torch.inference_mode():
            output = self.parts[part](*self.inputs[part])
            if self.device == "cuda":
                self.torch.cuda.synchronize()
        return output

    def numbers(self, output) -> list[float]:
        logits = getattr(output, "logits", output)
        return logits[0].float().flatten().tolist()


class OnnxRuntime:
    """An ONNX file in onnxruntime."""

    def prepare(self, images, file: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = None  # frees the one before
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.inputs = {self.session.get_inputs()[0].name: images}

    def run(self, part: str):
        return self.session.run(None, self.inputs)

    def numbers(self, output) -> list[float]:
        return output[0][0].flatten().tolist()


class OpenVino:
    """An ONNX file in OpenVINO, compiled for the size of the images."""

    def __init__(self, dtype: str):
        self.precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]

    def prepare(self, images, file: str, threads: int) -> None:
        import openvino

        self.request = None  # frees the one before
        model = openvino.Core().read_model(file)
        model.reshape(images.shape)
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        self.request = openvino.compile_model(model, "CPU", settings).create_infer_request()
        self.inputs = [images]

    def run(self, part: str):
        return self.request.infer(self.inputs, share_inputs=True)

    def numbers(self, output) -> list[float]:
        return output[0][0].flatten().tolist()


def build_id() -> str:
    """Tells builds of this package apart: of the files that models consist of."""
    import hf_models

    files = sorted(Path(hf_models.__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files))
    return digest.hexdigest()[:7]


def about() -> dict[str, str]:
    """Which build of this package this Python has, with which kernels, and which PyTorch."""
    import torch

    from hf_models.hub_kernels import status

    builds = [row.version or f"{row.kernel}: PyTorch reference" for row in status() if row.device == "cpu"]
    return {"build": build_id(), "kernel": "; ".join(builds), "torch": torch.__version__}


class Contestant:
    """Answers the requests."""

    def __init__(self, runtime: str, **specification):
        self.runtime = {"torch": Torch, "onnxruntime": OnnxRuntime, "openvino": OpenVino}[runtime](**specification)

    def prepare(self, shape: list[int], **case) -> dict[str, object]:
        """Make images, the same in every process, and run the whole twice: the second time uses no new memory."""
        import numpy

        images = numpy.random.default_rng(0).standard_normal(shape, dtype=numpy.float32)
        self.runtime.prepare(images, **case)
        self.runtime.run("whole")
        reset = _reset_peak(self.runtime)
        output = self.runtime.run("whole")
        return {"peak_megabytes": reset(), "output": self.runtime.numbers(output)}

    def time(self, part: str) -> float:
        """Seconds that one run takes."""
        start = time.perf_counter()
        result = self.runtime.run(part)  # kept until the clock has stopped: freeing it is not the runtime's work
        elapsed = time.perf_counter() - start
        del result
        return elapsed


def _reset_peak(runtime) -> Callable[[], float]:
    """Forget the peak of the memory so far; what is returned tells the peak since then, in megabytes.

    That of the whole process on a CPU: what the C library has kept of earlier runs is given back first. On a GPU,
    what PyTorch has allocated there.
    """
    gc.collect()
    if getattr(runtime, "device", "cpu") == "cuda":
        runtime.torch.cuda.reset_peak_memory_stats()
        return lambda: runtime.torch.cuda.max_memory_allocated() / 1e6
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):  # another C library or system: the peak of the process's life
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return lambda: _resident("VmHWM")


def _resident(field: str) -> float:
    """A field of /proc/self/status in megabytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


def main() -> None:
    """Answer `{"about": true}`, `{"contestant": ..., "prepare": ...}` and, after that, `{"time": part}`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks ends this one
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    contestant = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "about" in request:
                answer = about()
            elif "prepare" in request:
                contestant = contestant or Contestant(**request["contestant"])
                answer = contestant.prepare(**request["prepare"])
            else:
                answer = contestant.time(request["time"])
            answer = {"answer": answer}
        except Exception as error:  # any library's
            answer = {"error": (str(error).strip() or type(error).__name__).splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
