"""Products by either of torch's libraries: the same function, and gradients where they are wanted."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from visae import products
from visae.products import linear, speed_up_linears
from visae.vision.timm_import import import_timm


@pytest.fixture(params=["by MKL", "by oneDNN"])
def _library(request, monkeypatch):
    """Both ways, whatever this machine would take: oneDNN has code for every processor."""
    monkeypatch.setattr(products, "onednn_is_faster", lambda: request.param == "by oneDNN")


def operands(*leading: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(*leading, 48, generator=generator),
        torch.randn(96, 48, generator=generator),
        torch.randn(96, generator=generator),
    )


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("leading", [(0,), (1,), (300,), (2, 7), (2, 0, 3)])
def test_it_is_torchs_linear(leading):
    inputs, weight, bias = operands(*leading)
    exact = functional.linear(inputs.double(), weight.double(), bias.double())
    # 48 products of numbers around 1, each rounded to 2^-24 of a sum below 64.
    with torch.no_grad():
        torch.testing.assert_close(linear(inputs, weight, bias).double(), exact, rtol=0, atol=48 * 2**-18)
        torch.testing.assert_close(linear(inputs, weight).double(), exact - bias, rtol=0, atol=48 * 2**-18)


@pytest.mark.usefixtures("_library")
def test_strided_operands_are_read_as_they_are():
    inputs, weight, bias = operands(64)
    with torch.no_grad():
        torch.testing.assert_close(
            linear(inputs.T.contiguous().T, weight.T.contiguous().T, bias), functional.linear(inputs, weight, bias)
        )


@pytest.mark.usefixtures("_library")
def test_a_buffer_may_be_used_and_changes_nothing():
    inputs, weight, bias = operands(64)
    with torch.no_grad():
        found = linear(inputs, weight, bias, torch.full((64, 96), torch.nan))
    torch.testing.assert_close(found, functional.linear(inputs, weight, bias))


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("is_frozen", [True, False])
def test_gradients_are_those_of_torch(is_frozen):
    def gradients(product):
        inputs, weight, bias = (part.clone() for part in operands(5, 9))
        wanted = [inputs.requires_grad_()] + ([] if is_frozen else [weight.requires_grad_(), bias.requires_grad_()])
        return torch.autograd.grad(product(inputs, weight, bias).sin().sum(), wanted)

    torch.testing.assert_close(gradients(linear), gradients(functional.linear))


def test_what_is_not_float32_on_a_cpu_stays_with_torch(monkeypatch):
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    inputs, weight, bias = operands(4)
    assert torch.equal(
        linear(inputs.double(), weight.double(), bias.double()),
        functional.linear(inputs.double(), weight.double(), bias.double()),
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(inputs, weight, bias).dtype == torch.bfloat16


@pytest.mark.usefixtures("_library")
def test_linear_layers_of_a_module_keep_names_weights_and_results():
    class Own(nn.Linear):
        def forward(self, input):
            return super().forward(input) + 1

    module = nn.Sequential(nn.Linear(48, 96), nn.GELU(), Own(96, 4))
    before, names = module(operands(8)[0]), list(module.state_dict())
    speed_up_linears(module)
    torch.testing.assert_close(module(operands(8)[0]), before)
    assert list(module.state_dict()) == names
    assert all(isinstance(module[number], nn.Linear) for number in (0, 2))


@pytest.mark.usefixtures("_library")
def test_an_mlp_is_what_it_was_with_and_without_gradients():
    import_timm()
    from timm.layers import Mlp

    torch.manual_seed(0)
    tanh = Mlp(48, 96, act_layer=lambda: nn.GELU(approximate="tanh"))
    module = nn.Sequential(Mlp(48, 96), tanh).requires_grad_(False)
    inputs = operands(3, 7)[0].requires_grad_()
    before = module(inputs)
    (slope,) = torch.autograd.grad(before.sum(), inputs)
    speed_up_linears(module)
    with torch.no_grad():
        torch.testing.assert_close(module(inputs), before)
    after = module(inputs)
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(torch.autograd.grad(after.sum(), inputs)[0], slope)


@pytest.mark.usefixtures("_library")
def test_rows_do_not_depend_on_how_many_threads_compute():
    inputs, weight, bias = operands(500)
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 2):
            torch.set_num_threads(number)
            with torch.no_grad():
                found.append(linear(inputs, weight, bias))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
