"""The compiled product is torch's, whatever the shapes, the kind of weights and the number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from polyroute.backends.local.worker.compute.kernels import FORMATS, Kernel, kernel

EXACT = ["bfloat16", "float16", "float32"]
GROUPED = ["int8", "int4"]


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def made(name: str) -> Kernel:
    found = kernel(name)
    assert found is not None
    return found


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_product(found: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    wanted = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    assert found.dtype is torch.float32
    assert float((found.double() - wanted).abs().max()) <= 1e-5 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (16, 3), (37, 53), (64, 64), (100, 257), (200, 576)])
def test_equals_torch_for_odd_shapes(name: str, outputs: int, inputs: int, threads: int) -> None:
    weight = random(outputs, inputs).to(getattr(torch, name))
    bias = random(outputs, seed=1)
    with_bias, without = made(name).layer(weight, bias), made(name).layer(weight, None)
    for rows in (1, 2, 5, 6, 7, 31):
        x = random(rows, inputs, seed=rows)
        assert_product(with_bias.run(x), x, weight, bias)
        assert_product(without.run(x), x, weight, None)


@pytest.mark.parametrize("name", EXACT + GROUPED)
def test_equals_torch_for_every_number_of_rows(name: str) -> None:
    weight, bias = random(41, 96), random(41, seed=1)
    layer = made(name).layer(weight, bias)
    held = layer.form.unpack(layer.packed, torch.arange(41))
    for rows in range(131):
        x = random(rows, 96, seed=rows)
        found = layer.run(x)
        assert found.shape == (rows, 41)
        if rows:
            assert_product(found, x, held, bias)


@pytest.mark.parametrize("name", EXACT)
def test_holds_the_very_weights(name: str) -> None:
    weight = random(37, 53).to(getattr(torch, name))
    layer = made(name).layer(weight, None)
    assert torch.equal(layer.form.unpack(layer.packed, torch.arange(37)), weight.float())
    assert torch.equal(
        layer.form.unpack(layer.packed, torch.tensor([[3, 36]])), weight[torch.tensor([[3, 36]])].float()
    )


@pytest.mark.parametrize(("name", "steps"), [("int8", 127), ("int4", 7.5)])
def test_quantised_weights_are_within_half_a_step(name: str, steps: float) -> None:
    groups = random(50, 3, 32).clamp(-2, 2)
    layer = made(name).layer(groups.view(50, 96), None)
    found = layer.form.unpack(layer.packed, torch.arange(50)).view(50, 3, 32)
    reach = (
        groups.abs().amax(-1, keepdim=True) if name == "int8" else (groups.amax(-1) - groups.amin(-1))[..., None] / 2
    )
    mean = ((found - groups) / reach).square().mean().sqrt()
    assert float(mean) < 0.5 / steps  # a third of a step, were they uniform


@pytest.mark.parametrize("name", GROUPED)
def test_a_group_of_zeros_and_one_of_large_numbers_stay_what_they_are(name: str) -> None:
    weight = torch.zeros(16, 64)
    weight[:, 32:] = 1000.0
    layer = made(name).layer(weight, None)
    assert torch.allclose(layer.form.unpack(layer.packed, torch.arange(16)), weight, rtol=1e-2)


@pytest.mark.parametrize("name", EXACT + GROUPED)
def test_weights_may_be_a_transposed_view(name: str) -> None:
    weight = random(64, 40)
    straight, turned = made(name).layer(weight.t().contiguous(), None), made(name).layer(weight.t(), None)
    x = random(3, 64, seed=1)
    assert torch.equal(straight.run(x), turned.run(x))


@pytest.mark.parametrize("name", EXACT + GROUPED)
def test_a_row_does_not_depend_on_the_others(name: str) -> None:
    layer = made(name).layer(random(48, 64), random(48, seed=1))
    x = random(8, 64, seed=2)
    others = torch.cat([x[:1], 1000 * random(7, 64, seed=3)])
    assert torch.equal(layer.run(x)[0], layer.run(others)[0])


@pytest.mark.parametrize("name", EXACT + GROUPED)
def test_a_row_is_the_same_to_the_bit_in_any_number_of_rows(name: str, threads: int) -> None:
    layer = made(name).layer(random(48, 320), random(48, seed=1))
    x = random(130, 320, seed=2)
    alone = torch.cat([layer.run(row[None]) for row in x])
    for rows in (2, 3, 5, 7, 12, 40, 70, 130):
        assert torch.equal(layer.run(x[:rows]), alone[:rows])


def test_rows_may_be_strided_and_of_another_type() -> None:
    layer = made("bfloat16").layer(random(32, 24), None)
    x = random(2, 3, 48, seed=1)[..., ::2]
    assert torch.equal(layer.run(x), layer.run(x.contiguous()))
    assert layer.run(x.bfloat16()).dtype is torch.float32
    assert layer.run(x).shape == (2, 3, 32)


def test_a_wrong_kernel_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check at load is what notices: here the products of a kernel are off by a thousandth."""
    wrong = Kernel(FORMATS["bfloat16"])
    assert wrong.agrees()
    layer = type(wrong.layer(random(16, 32), None))
    run = layer.run
    monkeypatch.setattr(layer, "run", lambda self, x: run(self, x) * 1.001)
    assert not wrong.agrees()
