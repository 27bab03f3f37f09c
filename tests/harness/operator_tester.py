"""The tests that every operator must pass, whether PyTorch or a compiled kernel computes it.

An operator has one class that derives from `OperatorTester` and says what it takes, does and refuses. What runs the
tests derives from that: the class of the reference, and those of the kernel (see kernel_tester.py).
"""

import pytest
import torch

from .derivatives import RIGHT_VALUES, check_derivative

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def results(function, inputs, gradient=None, **options):
    """Output and the gradients of the inputs, for this gradient of the output or for that of a sum of sines.

    An input may be `None`; it has no gradient then.
    """
    inputs = [None if tensor is None else tensor.detach().requires_grad_() for tensor in inputs]
    out = function(*inputs, **options)
    out.backward(out.detach().cos() if gradient is None else gradient)
    return [out.detach(), *(tensor.grad for tensor in inputs if tensor is not None)]


class OperatorTester:
    """What a subclass says of its operator: these attributes, the methods that raise here, and the fixture `function`.

    A row of `refusals` is (change, error, message): what is done to the inputs of `small_case`, and how it ends.
    """

    inputs: tuple[str, ...]  # the names of the tensors
    batched: tuple[str, ...]  # of those whose first axis is the batch
    refusals: list
    gradients_of_every_order = False
    refused_derivatives: tuple[str, ...] = ()  # of the functions in derivatives.py

    def small_case(self, dtype=torch.float32, batch=2, kind="ordinary"):
        """Inputs and options of a call; `tiny` is for gradcheck, `large` has work for several threads."""
        raise NotImplementedError

    def reference(self, *inputs, **options):
        """The truth, exact for float64."""
        raise NotImplementedError

    def assert_same(self, actual, expected):
        """The same numbers, though memory or batch differ: the reference may add in another order."""
        torch.testing.assert_close(actual, expected)

    def images(self, inputs, part):
        """The inputs with these images only."""
        return [
            tensor[part] if name in self.batched else tensor for name, tensor in zip(self.inputs, inputs, strict=True)
        ]

    def pytest_generate_tests(self, metafunc):
        """The rows of the class's tables are the parameters of the tests that ask for one."""
        for row, table in {"path": "paths", "refusal": "refusals", "operator_refusal": "operator_refusals"}.items():
            if row in metafunc.fixturenames:
                metafunc.parametrize(row, getattr(self, table), indirect=row == "path")

    def test_gradients_are_those_of_finite_differences(self, function):
        inputs, options = self.small_case(torch.float64, kind="tiny")
        inputs = [tensor.requires_grad_() for tensor in inputs]
        assert torch.autograd.gradcheck(lambda *inputs: function(*inputs, **options), inputs)
        if self.gradients_of_every_order:
            assert torch.autograd.gradgradcheck(lambda *inputs: function(*inputs, **options), inputs)

    @pytest.mark.parametrize("way", RIGHT_VALUES, ids=lambda way: way.__name__)
    def test_derivatives_are_right_or_refused(self, function, way):
        """However PyTorch differentiates or transforms the operator."""
        inputs, options = self.small_case(torch.float64, kind="tiny")
        try:
            check_derivative(
                way,
                lambda *inputs: function(*inputs, **options),
                lambda *inputs: self.reference(*inputs, **options),
                inputs,
            )
        except (NotImplementedError, RuntimeError) as error:
            assert way.__name__ in self.refused_derivatives, error

    @pytest.mark.parametrize("view", ["apart", "every second", "reversed axes", "cut out"])
    def test_views_of_any_stride(self, function, view):
        inputs, options = self.small_case()
        expected = function(*inputs, **options)
        for i, tensor in enumerate(inputs):
            axes = range(tensor.ndim)[::-1]
            other = {
                "apart": lambda t: torch.stack((t, t), dim=1)[:, 0],
                "every second": lambda t: torch.stack((t, t), dim=-1)[..., 0],
                "reversed axes": lambda t, axes=axes: t.permute(*axes).contiguous().permute(*axes),
                "cut out": lambda t: torch.nn.functional.pad(t, (1, 2) * t.ndim)[(slice(1, -2),) * t.ndim],
            }[view](tensor)
            self.assert_same(function(*inputs[:i], other, *inputs[i + 1 :], **options), expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("kind", ["ordinary", "large"])
    def test_an_image_does_not_depend_on_its_company(self, function, kind, dtype):
        inputs, options = self.small_case(dtype, batch=3, kind=kind)
        together = function(*inputs, **options)
        for i in range(3):
            self.assert_same(function(*self.images(inputs, slice(i, i + 1)), **options), together[i : i + 1])

    def test_no_images(self, function):
        inputs, options = self.small_case()
        shape = function(*inputs, **options).shape
        inputs = self.images(inputs, slice(0))
        out, *gradients = results(function, inputs, **options)
        assert out.shape == (0, *shape[1:])
        for tensor, gradient in zip(inputs, gradients, strict=True):
            assert gradient.shape == tensor.shape and not gradient.any()

    def test_compiles_into_one_graph(self, function):
        inputs, options = self.small_case()
        out = torch.compile(function, fullgraph=True, backend="aot_eager")(*inputs, **options)
        torch.testing.assert_close(out, function(*inputs, **options))

    def test_errors_name_both_values(self, function, refusal):
        change, error, message = refusal
        inputs, options = self.small_case(torch.float64)
        with pytest.raises(error, match=message):
            function(*change(*inputs), **options)
