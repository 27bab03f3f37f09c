"""The formats that models are exported to: each writes a program to a file and returns what runs the file."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from hf_models import hub_kernels

Run = Callable[[torch.Tensor], list[torch.Tensor]]


@dataclass(frozen=True)
class Format:
    """A format.

    Args:
        file: Where clients look for the program in a folder.
        write: Takes the program, the path of the file, the names of the outputs and the dynamic shapes of the program.
        packages: What must be installed.
        keeps_kernels: Whether the program may call the compiled kernels of this machine, which come with it.
    """

    file: str
    write: Callable[[torch.export.ExportedProgram, Path, tuple[str, ...], dict], Run]
    packages: tuple[str, ...] = ()
    keeps_kernels: bool = False


def write_onnx(program: torch.export.ExportedProgram, path: Path, names: tuple[str, ...], shapes: dict) -> Run:
    """Write ONNX, with weights above 2 GB in a file beside it; returns what runs the written file."""
    import onnxruntime

    torch.onnx.export(
        program,
        input_names=["pixel_values"],
        output_names=names,
        dynamic_shapes=(shapes,),  # of the program already; here they give the names
        verbose=False,
    ).save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(array) for array in session.run(None, {"pixel_values": images.numpy()})]


def write_program(program: torch.export.ExportedProgram, path: Path, names: tuple[str, ...], shapes: dict) -> Run:
    """Write a program of torch.export; returns what runs the written file."""
    torch.export.save(program, path)
    return torch.export.load(path).module()


def write_aoti(program: torch.export.ExportedProgram, path: Path, names: tuple[str, ...], shapes: dict) -> Run:
    """Compile the program into a package of AOTInductor, with the kernels that it calls beside it; returns its run."""
    called = {node.target.namespace for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    for kernel in hub_kernels.status():
        if kernel.version in called:
            (library,) = Path(kernel.path).glob(f"{kernel.version}.*")
            shutil.copy(library, path.parent)
    # freezing stores the weights in the layout that oneDNN computes with
    torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs={"freezing": True})
    return torch._inductor.aoti_load_package(str(path))


FORMATS = {
    # the folder is where transformers.js looks; optimum looks everywhere
    "onnx": Format("onnx/model.onnx", write_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "torch-export": Format("model.pt2", write_program),
    "aoti": Format("model.pt2", write_aoti, keeps_kernels=True),
}
