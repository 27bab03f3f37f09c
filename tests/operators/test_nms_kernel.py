"""The compiled non-maximum suppression keeps what the reference keeps, on every path: CPUs, and the CUDA source."""

import random
import sys

import pytest
import torch
from kernels import get_local_kernel

from hf_models import hub_kernels
from hf_models import nms as nms_module
from hf_models.nms import batched_nms, nms

from ..harness.detection_goldens import golden
from ..harness.kernel_builder import cpu_variant, emulated_variant

PATHS = {  # (build, variable, value)
    **{path: (cpu_variant, "DETECTION_OPS_CPU_PATH", path) for path in ("avx512", "avx2", "portable")},
    **{f"cuda, {order}": (emulated_variant, "EMULATOR_ORDER", order) for order in ("forward", "reverse")},
}


@pytest.fixture(params=PATHS)
def kernel(request, monkeypatch):
    build, variable, value = PATHS[request.param]
    kernel = get_local_kernel(build("detection-ops"))
    monkeypatch.setenv(variable, value)
    try:
        kernel.cpu_path()
    except RuntimeError as error:
        pytest.skip(str(error).splitlines()[0])
    return kernel


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.setattr(nms_module, "get_function", lambda *_: None)
    monkeypatch.setattr(nms_module, "torchvision_nms", None)
    return batched_nms


def random_case(seed):
    """Boxes, scores and groups: equal scores, boxes without area, coordinates that are no numbers."""
    pick = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    count = pick.choice([0, 1, 2, 17, 64, 65, 130, 300])
    corner = torch.rand(count, 2, generator=generator) * 100
    boxes = torch.cat((corner, corner + torch.rand(count, 2, generator=generator) * pick.choice([5, 40, 90])), dim=1)
    if pick.random() < 0.5:
        boxes = boxes.round()  # equal overlaps, and boxes that are the same
    scores = torch.rand(count, generator=generator)
    if pick.random() < 0.5:
        scores = (scores * 10).round() / 10
    if count > 2 and pick.random() < 0.3:
        boxes[1], boxes[2, 3] = boxes[1, 0], pick.choice([float("nan"), float("inf")])
        scores[0] = float("nan")
    groups = torch.randint(0, pick.choice([1, 3, 80]), (count,), generator=generator)
    return boxes, scores, groups, pick.choice([0.0, 0.3, 0.5, 0.7, 1.0])


def check(kernel, reference, seeds):
    for seed in seeds:
        boxes, scores, groups, threshold = random_case(seed)
        expected = reference(boxes, scores, groups, threshold)
        assert torch.equal(kernel.batched_nms(boxes, scores, groups, threshold), expected), seed
        zeros = torch.zeros_like(groups)
        assert torch.equal(kernel.nms(boxes, scores, threshold), reference(boxes, scores, zeros, threshold)), seed


def test_random_cases(kernel, reference):
    check(kernel, reference, range(60))


@pytest.mark.slow
def test_many_random_cases(kernel, reference):
    check(kernel, reference, range(1000, 3000))


@pytest.mark.parametrize("name", ["nms_classes", "nms_levels"])
def test_groups_are_the_originals(kernel, name):
    about, tensors = golden(name)
    boxes, scores, groups, keep = (tensors[part] for part in ("boxes", "scores", "groups", "keep"))
    assert torch.equal(kernel.batched_nms(boxes, scores, groups, about["iou_threshold"]), keep)


def test_boxes_without_area_are_the_originals(kernel):
    _, tensors = golden("nms_edge")
    assert torch.equal(kernel.nms(tensors["boxes"], tensors["scores"], 0.5), tensors["keep"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_dtype_is_compared_in_float32(kernel, dtype):
    boxes, scores, groups, threshold = random_case(5)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    expected = kernel.batched_nms(boxes.float(), scores, groups, threshold)
    assert torch.equal(kernel.batched_nms(boxes, scores, groups, threshold), expected)


def test_the_flat_functions_run_it(kernel, monkeypatch):
    decision = hub_kernels.KernelStatus("detection-ops", "cpu", "local", None, None, (), "the tests' build", ())
    monkeypatch.setattr(hub_kernels, "_choose", lambda *_: (kernel, decision))
    monkeypatch.setattr(hub_kernels, "_modules", {})
    monkeypatch.setattr(nms_module, "nms_reference", None)
    monkeypatch.setattr(nms_module, "torchvision_nms", None)
    boxes, scores, groups, threshold = random_case(4)
    assert torch.equal(nms(boxes, scores, threshold), kernel.nms(boxes, scores, threshold))
    expected = kernel.batched_nms(boxes, scores, groups, threshold)
    assert torch.equal(batched_nms(boxes, scores, groups, threshold), expected)


def test_opcheck_and_compile(kernel):
    boxes, _, groups, threshold = random_case(4)
    operators = sys.modules[f"{kernel.__name__}._ops"].ops
    torch.library.opcheck(operators.suppress.default, (boxes, groups, threshold))
    compiled = torch.compile(operators.suppress, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(boxes, groups, threshold), operators.suppress(boxes, groups, threshold))


def test_wrong_shapes_are_refused(kernel):
    boxes, scores, groups, _ = random_case(4)
    operators = sys.modules[f"{kernel.__name__}._ops"].ops
    with pytest.raises(ValueError, match=r"boxes: expected \(M, 4\), got"):
        kernel.nms(boxes[:, 1:], scores, 0.5)
    with pytest.raises(ValueError, match=r"scores: expected \(\d+,\), got"):
        kernel.nms(boxes, scores[1:], 0.5)
    with pytest.raises(RuntimeError, match=r"groups: expected \(\d+\), got"):
        operators.suppress(boxes, groups[1:], 0.5)
    with pytest.raises(RuntimeError, match="boxes: expected float32"):
        operators.suppress(boxes.double(), groups, 0.5)
