"""The compiled product is torch's, whatever the shapes, the kind of weights and the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from polyroute.backends.local.worker.compute import jit
from polyroute.backends.local.worker.compute.arithmetic import FOURS, PAIRS, multiplies_fours, multiplies_pairs
from polyroute.backends.local.worker.compute.formats import BFloat16, BFloat16Pairs, Floats, Format
from polyroute.backends.local.worker.compute.integers import Int4Fours, Int8Fours
from polyroute.backends.local.worker.compute.kernels import Kernel, formats, kernel
from polyroute.backends.local.worker.compute.quantized import Int4, Int8

FORMS: dict[str, Format] = {
    "bfloat16": BFloat16(),
    "bfloat16 pairs": BFloat16Pairs(),
    "float16": Floats(torch.float16),
    "float32": Floats(torch.float32),
    "int8": Int8(),
    "int8 fours": Int8Fours(),
    "int4": Int4(),
    "int4 fours": Int4Fours(),
}
THERE = {PAIRS.name: multiplies_pairs, FOURS.name: multiplies_fours}


def named(*names: str) -> list[object]:
    """Those kinds of weights, each a test of its own, left out where the processor has no instruction for it."""
    params: list[object] = []
    for name in names:
        there = THERE.get(FORMS[name].arithmetic.name, lambda _: True)(jit.processor())
        params.append(pytest.param(name, marks=[] if there else pytest.mark.skip(reason="not on this processor")))
    return params


EXACT = named("bfloat16", "bfloat16 pairs", "float16", "float32")
GROUPED = named("int8", "int8 fours", "int4", "int4 fours")


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@cache
def made(name: str) -> Kernel:
    return Kernel(FORMS[name])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_product(found: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    wanted = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    assert found.dtype is torch.float32
    assert float((found.double() - wanted).abs().max()) <= 1e-5 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (16, 3), (37, 53), (64, 64), (100, 257), (200, 576)])
def test_equals_torch_for_odd_shapes(name: str, outputs: int, inputs: int, threads: int) -> None:
    weight = random(outputs, inputs).to(getattr(torch, name.split()[0]))
    bias = random(outputs, seed=1)
    with_bias, without = made(name).layer(weight, bias), made(name).layer(weight, None)
    for rows in (1, 2, 5, 6, 7, 31):
        x = random(rows, inputs, seed=rows)
        seen = made(name).rounded(x)
        assert_product(with_bias.run(x), seen, weight, bias)
        assert_product(without.run(x), seen, weight, None)


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
            assert_product(found, made(name).rounded(x), held, bias)


@pytest.mark.parametrize("name", EXACT)
def test_holds_the_very_weights(name: str) -> None:
    weight = random(37, 53).to(getattr(torch, name.split()[0]))
    layer = made(name).layer(weight, None)
    assert torch.equal(layer.form.unpack(layer.packed, torch.arange(37)), weight.float())
    assert torch.equal(
        layer.form.unpack(layer.packed, torch.tensor([[3, 36]])), weight[torch.tensor([[3, 36]])].float()
    )


class Made(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        if isinstance(found, torch.Tensor) and found.untyped_storage().data_ptr() not in given:
            self.bytes += found.untyped_storage().nbytes()
        return found


@pytest.mark.parametrize("name", EXACT + GROUPED)
def test_a_look_at_a_few_rows_leaves_the_others_alone(name: str) -> None:
    """A step looks the embeddings of its tokens up in such weights, where they are those of the head."""
    layer = made(name).layer(random(8192, 64), None)
    panels = layer.packed.panels
    with Made() as made_:
        layer.form.unpack(layer.packed, torch.tensor([5, 8000]))
    assert made_.bytes < panels.numel() * panels.itemsize / 8


@pytest.mark.parametrize("name", GROUPED)
def test_quantised_weights_are_within_half_a_step(name: str) -> None:
    eight, steps = name.startswith("int8"), 127 if name.startswith("int8") else 7.5
    groups = random(50, 3, 32).clamp(-2, 2)
    layer = made(name).layer(groups.view(50, 96), None)
    found = layer.form.unpack(layer.packed, torch.arange(50)).view(50, 3, 32)
    reach = groups.abs().amax(-1, keepdim=True) if eight else (groups.amax(-1) - groups.amin(-1))[..., None] / 2
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
    layer = made("bfloat16").layer(random(32, 24), None)  # in float32, for which nothing of another type is exact
    x = random(2, 3, 48, seed=1)[..., ::2]
    assert torch.equal(layer.run(x), layer.run(x.contiguous()))
    assert layer.run(x.bfloat16()).dtype is torch.float32
    assert layer.run(x).shape == (2, 3, 32)


@pytest.mark.parametrize("name", named("bfloat16 pairs", "int8 fours"))
def test_rows_are_rounded_as_torch_rounds(name: str) -> None:
    x = random(3, 96) * torch.tensor([[1e-3], [1.0], [1e4]])
    x[1, 32:64] = 0
    if name == "bfloat16 pairs":
        assert torch.equal(made(name).rounded(x), x.bfloat16().float())
        return
    groups = x.view(3, -1, 32)
    scale = groups.abs().amax(-1, keepdim=True) / 127
    wanted = torch.round(groups / scale.where(scale > 0, 1)) * scale
    torch.testing.assert_close(made(name).rounded(x), wanted.flatten(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", EXACT + GROUPED)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_not_rounded_away(name: str, bad: float) -> None:
    """Else an answer would go on from what a broken model computes."""
    x = random(3, 64)
    x[1, 40] = bad
    found = made(name).layer(random(48, 64), None).run(x)
    assert torch.isfinite(found).all(-1).tolist() == [True, False, True]


def test_each_kind_of_weights_has_the_arithmetic_that_suits_the_processor() -> None:
    plain = jit.Processor("plain", frozenset(), 8, 16, pairs=True)
    new = jit.Processor("new", frozenset({"avx512bf16", "avx512vnni"}), 16, 32, pairs=True)
    assert {form.arithmetic.name for form in formats(plain).values()} == {"float32"}
    assert {name: form.arithmetic.name for name, form in formats(new).items()} == {
        "bfloat16": "bfloat16", "float16": "float32", "float32": "float32", "int8": "int8", "int4": "int8",
    }  # fmt: skip
    assert {"bfloat16", "float16", "float32", "int8", "int4"} == set(formats(jit.processor()))
    assert all(kernel(name) is not None for name in formats(jit.processor()))


def test_a_wrong_kernel_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check at load is what notices: here the products of a kernel are off by a thousandth."""
    wrong = Kernel(FORMS["bfloat16"])
    assert wrong.agrees()
    layer = type(wrong.layer(random(16, 32), None))
    run = layer.run
    monkeypatch.setattr(layer, "run", lambda self, x: run(self, x) * 1.001)
    assert not wrong.agrees()
