"""The tests that every compiled kernel must pass, beside those of its operator (see operator_tester.py).

The class of the operator also says what the kernel is; two classes derive from it and run the tests:
`CompiledKernel` on every compute path of the CPU, `EmulatedKernel` the CUDA source on an emulated device. The latter
shows that indices, synchronisation and arithmetic are right. It does not show that the kernel runs on a GPU.
"""

import importlib.util
import sys

import pytest
import torch
from kernels import KernelizeFallback, LocalLayerRepository, Mode, get_local_kernel, kernelize, use_kernel_mapping
from kernels import use_kernel_forward_from_hub as layer_name
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hf_models import hub_kernels

from .derivatives import RIGHT_VALUES, check_derivative
from .kernel_builder import KERNELS_SRC, cpu_variant, emulated_variant
from .operator_tester import DTYPES, OperatorTester, results

HALF = (torch.bfloat16, torch.float16)
# what PyTorch itself refuses of operators that have a gradient by `torch.library.register_autograd`
TRANSFORMED_GRADIENTS = ("gradient", "gradients_of_a_batch", "jacrev", "gradient_of_gradient", "forward_over_reverse")


def load_module(path):
    """A Python file of a kernel's folder, which is no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shifted(tensor, numbers):
    """The same tensor that many numbers further in memory, contiguous, so that it is not aligned."""
    return torch.cat((tensor.new_zeros(numbers), tensor.flatten()))[numbers:].view(tensor.shape)


class KernelTester(OperatorTester):
    """What is tested on any device.

    A row of `operator_refusals` is (operator, arguments, message): its name, and what it is called with, made of the
    inputs of `small_case`.
    """

    kernel_name: str  # of the kernel's folder
    function_name: str  # of its public function
    layer: str  # of its layer in layers.py
    cpu_paths: tuple[str, ...]  # the best first
    benchmark: str  # the shape of its benchmarks/benchmark.py that is tested
    operator_refusals: list
    operator: staticmethod  # the function of hf_models that runs the kernel
    refused_derivatives = TRANSFORMED_GRADIENTS

    def random_case(self, seed):
        """Inputs, the gradient of the output, options: any shape, layout and dtype."""
        raise NotImplementedError

    def operator_calls(self):
        """Names of operators with arguments, for opcheck."""
        raise NotImplementedError

    def module(self):
        """A module that kernelize can replace, and the arguments of its forward."""
        raise NotImplementedError

    def function_of(self, kernel, monkeypatch):
        """The public function, made to call the operators always if it has a choice."""
        return getattr(kernel, self.function_name)

    def assert_same(self, actual, expected):
        assert torch.equal(actual, expected)

    @pytest.fixture
    def function(self, kernel, path, monkeypatch):
        """The public function, on each path in turn."""
        return self.function_of(kernel, monkeypatch)

    @pytest.fixture
    def default_function(self, kernel, monkeypatch):
        """The public function, on the path that users have."""
        return self.function_of(kernel, monkeypatch)

    @pytest.fixture
    def operators(self, kernel):
        return sys.modules[f"{kernel.__name__}._ops"].ops

    def check_random_cases(self, function, seeds):
        for seed in seeds:
            inputs, gradient, options = self.random_case(seed)
            ours = results(function, inputs, gradient, **options)
            wide = [None if tensor is None else tensor.double() for tensor in inputs]
            exact = results(self.reference, wide, gradient.double(), **options)
            names = ["output", *(name for name, tensor in zip(self.inputs, inputs, strict=True) if tensor is not None)]
            dtype, shapes = inputs[0].dtype, [tensor.shape for tensor in inputs if tensor is not None]
            epsilon = torch.finfo(dtype).eps
            for name, actual, expected in zip(names, ours, exact, strict=True):
                assert actual.dtype == dtype
                error = (actual.double() - expected).abs().max().item() / max(1.0, expected.abs().max().item())
                assert error <= epsilon * (1 if dtype in HALF else 50), (
                    f"seed {seed}, {name}: {error / epsilon:.1f} eps ({dtype}, {shapes}, {options})"
                )

    def test_random_cases(self, function):
        self.check_random_cases(function, self.random_seeds)

    @pytest.mark.slow
    def test_many_random_cases(self, function):
        self.check_random_cases(function, self.many_random_seeds)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_memory_that_is_not_aligned(self, function, dtype):
        """Other threads may have other numbers then, and add in another order."""
        inputs, options = self.small_case(dtype)
        expected = function(*inputs, **options)
        tolerance = 4 * torch.finfo(dtype).eps
        for shift in (1, 2, 4):
            out = function(*(shifted(tensor, shift) for tensor in inputs), **options)
            torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)

    @pytest.fixture
    def on_kernel(self, kernel, monkeypatch):
        """The function of hf_models, which finds this kernel."""
        self.function_of(kernel, monkeypatch)
        decision = hub_kernels.KernelStatus(self.kernel_name, "cpu", "local", None, None, (), "the tests' build", ())
        monkeypatch.setattr(hub_kernels, "_choose", lambda *_: (kernel, decision))
        monkeypatch.setattr(hub_kernels, "_modules", {})
        return self.operator

    @pytest.mark.parametrize("way", RIGHT_VALUES, ids=lambda way: way.__name__)
    def test_derivatives_are_right_where_the_reference_helps(self, on_kernel, way):
        inputs, options = self.small_case(torch.float64, kind="tiny")
        check_derivative(
            way,
            lambda *inputs: on_kernel(*inputs, **options),
            lambda *inputs: self.reference(*inputs, **options),
            inputs,
        )

    def test_compiled_transformations_are_right(self, on_kernel):
        """torch.compile decides while it traces, and not for calls of another kind."""
        inputs, options = self.small_case(torch.float64, kind="tiny")

        def run(*inputs):
            return on_kernel(*inputs, **options)

        def forward(*inputs):
            return torch.func.jvp(run, inputs, inputs)[1]

        compiled = torch.compile(run, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), run(*inputs))
        torch.testing.assert_close(torch.compile(forward, backend="aot_eager")(*inputs), forward(*inputs))
        torch.testing.assert_close(torch.func.jvp(compiled, tuple(inputs), tuple(inputs))[1], forward(*inputs))
        torch.testing.assert_close(compiled(*inputs), run(*inputs))

    def test_flops_are_those_of_the_reference(self, on_kernel):
        """With gradients and without, and for a counter that was made before the kernel was loaded."""
        inputs, options = self.small_case()
        counts = []
        for function in (on_kernel, self.counted):
            for tensors in (inputs, [tensor.detach().requires_grad_() for tensor in inputs]):
                with FlopCounterMode(display=False) as counter:
                    out = function(*tensors, **options)
                    if out.requires_grad:
                        out.sum().backward()
                counts.append(counter.get_total_flops())
        assert counts[:2] == counts[2:]
        assert 0 < counts[0] < counts[1]

    def test_opcheck(self, operators):
        for name, *arguments in self.operator_calls():
            torch.library.opcheck(getattr(operators, name).default, tuple(arguments))

    def test_operators_check_what_they_read(self, operators, operator_refusal):
        """They are callable without the public function, and must never read where there is nothing."""
        name, arguments, message = operator_refusal
        inputs, _ = self.small_case()
        with pytest.raises(RuntimeError, match=message):
            getattr(operators, name)(*arguments(*inputs))


class CompiledKernel(KernelTester):
    """The build for CPUs, as a user loads it, on every compute path that this processor runs."""

    random_seeds = range(150)
    many_random_seeds = range(1000, 3000)

    @property
    def paths(self):
        return self.cpu_paths

    @property
    def path_variable(self):
        return f"{self.kernel_name.replace('-', '_').upper()}_CPU_PATH"

    @pytest.fixture(scope="class")
    @classmethod
    def kernel(cls):
        return get_local_kernel(cpu_variant(cls.kernel_name))

    @pytest.fixture
    def path(self, request, kernel, monkeypatch):
        monkeypatch.setenv(self.path_variable, request.param)
        try:
            assert kernel.cpu_path() == request.param
        except RuntimeError as error:
            pytest.skip(str(error).splitlines()[0])
        return request.param

    def test_an_unknown_path_is_an_error(self, kernel, monkeypatch):
        monkeypatch.setenv(self.path_variable, "sse9")
        *paths, last = self.cpu_paths
        message = f"{self.path_variable}: expected {', '.join(paths)} or {last}, got sse9"
        with pytest.raises(RuntimeError, match=message):
            kernel.cpu_path()

    def test_the_kernel_is_registered(self):
        assert hub_kernels.KERNELS[self.kernel_name].dtypes == tuple(str(dtype)[6:] for dtype in DTYPES)

    @pytest.mark.parametrize("kind", ["ordinary", "large"])
    @pytest.mark.parametrize("batch", [1, 3])
    def test_the_number_of_threads_changes_nothing(self, default_function, batch, kind):
        inputs, options = self.small_case(batch=batch, kind=kind)
        self.check_threads(default_function, inputs, **options)

    def check_threads(self, function, inputs, **options):
        threads, found = torch.get_num_threads(), []
        try:
            for number in (1, 2, 5):
                torch.set_num_threads(number)
                found.append(results(function, inputs, **options))
        finally:
            torch.set_num_threads(threads)
        for other in found[1:]:
            assert all(map(torch.equal, found[0], other))

    def test_export(self, kernel, tmp_path):
        inputs, options = self.small_case()
        function = getattr(kernel, self.function_name)

        class Model(nn.Module):
            def forward(self, *inputs):
                return function(*inputs, **options)

        batch = torch.export.Dim("batch", min=1)
        dynamic = tuple({0: batch} if name in self.batched else {} for name in self.inputs)
        program = torch.export.export(Model(), tuple(inputs), dynamic_shapes=(dynamic,))
        torch.export.save(program, tmp_path / "model.pt2")
        inputs, _ = self.small_case(batch=3)
        out = torch.export.load(tmp_path / "model.pt2").module()(*inputs)
        torch.testing.assert_close(out, function(*inputs, **options))

    def test_inductor_trains_in_one_graph(self, kernel):
        inputs, options = self.small_case()
        function = getattr(kernel, self.function_name)
        compiled = results(torch.compile(function, fullgraph=True), inputs, **options)
        torch.testing.assert_close(compiled, results(function, inputs, **options))

    @pytest.mark.parametrize("mode", [Mode.INFERENCE, Mode.TRAINING, Mode.INFERENCE | Mode.TORCH_COMPILE])
    def test_kernelize_replaces_a_layer(self, kernel, mode):
        module, arguments = self.module()
        expected, forward = module(*arguments), type(module).forward
        layer_name(self.layer)(type(module))
        repository = LocalLayerRepository(repo_path=cpu_variant(self.kernel_name), layer_name=self.layer)
        with use_kernel_mapping({self.layer: {"cpu": repository}}, inherit_mapping=False):
            module = kernelize(module, mode=mode, device="cpu", use_fallback=KernelizeFallback.NONE)
        assert module.forward.__func__ is not forward
        torch.testing.assert_close(module(*arguments), expected, rtol=1e-5, atol=1e-5)

    def test_the_kernels_own_benchmark(self, kernel):
        module = load_module(KERNELS_SRC / self.kernel_name / "benchmarks" / "benchmark.py")
        benchmarks = [each for each in vars(module).values() if hasattr(each, f"setup_{self.benchmark}")]
        assert benchmarks
        for benchmark in benchmarks:
            instance = benchmark()
            instance.kernel = kernel
            getattr(instance, f"setup_{self.benchmark}")()
            getattr(instance, f"benchmark_{self.benchmark}")()
            expected = getattr(instance, f"verify_{self.benchmark}")()
            tolerance = 0.02 if instance.out.dtype in HALF else 1e-4
            torch.testing.assert_close(instance.out, expected, rtol=tolerance, atol=tolerance)


class EmulatedKernel(KernelTester):
    """The CUDA source, for tensors on the CPU; a path is the order in which threads and blocks take turns."""

    random_seeds = range(40)
    many_random_seeds = range(1000, 2000)
    paths = ("forward", "reverse")

    @pytest.fixture(scope="class")
    @classmethod
    def kernel(cls):
        return get_local_kernel(emulated_variant(cls.kernel_name))

    @pytest.fixture
    def path(self, request, monkeypatch):
        """No result may depend on it."""
        monkeypatch.setenv("EMULATOR_ORDER", request.param)
        return request.param

    def test_it_is_the_emulated_kernel_that_is_tested(self, kernel):
        assert kernel.cpu_path() == "emulated"
