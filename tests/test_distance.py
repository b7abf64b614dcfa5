import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pidlearn.losses.distances import DISTANCES, adaptive, pseudo_huber


@pytest.mark.parametrize("name", ["adaptive", "l1", "l2", "pseudo_huber"])
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1e3))
def test_zero_exactly_where_equal(name: str, seed: int, scale: float) -> None:
    a, b = scale * torch.randn(2, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    d = DISTANCES[name]
    assert d(a, a).tolist() == [0] * 4
    assert d(a, b).shape == (4,)
    assert (d(a, b) > 0).all()
    assert torch.equal(d(a, b), d(b, a))


def test_values() -> None:
    a, b = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[4.0, -2.0]]])
    assert DISTANCES["l2"](a, b).item() == 12.5
    assert DISTANCES["l1"](a, b).item() == 3.5
    assert adaptive(a, b, c=0.5).item() == pytest.approx(12.5 / 13)
    assert pseudo_huber(a, b, c=0.5).item() == pytest.approx((12.5 + 0.25) ** 0.5 - 0.5)


@pytest.mark.parametrize("size", [1e20, float("inf"), float("nan")])
def test_differences_whose_squares_overflow(size: float) -> None:
    a = torch.tensor([[size] * 3, [1.0] * 3], requires_grad=True)
    squared, huber = DISTANCES["l2"](a, torch.zeros(2, 3)), pseudo_huber(a, torch.zeros(2, 3))
    assert huber[0].item() == pytest.approx(squared[0].item(), nan_ok=True)  # infinite, or NaN
    assert huber[1].item() == pytest.approx((1 + 0.03**2) ** 0.5 - 0.03)
    huber[1].backward()
    assert a.grad is not None
    assert a.grad[1].isfinite().all()


def test_pseudo_huber_keeps_the_digits_of_small_residuals() -> None:
    a = torch.full((1, 2), 1e-4)
    assert pseudo_huber(a, 0 * a, c=0.03).item() == pytest.approx(1e-8 / 0.06, rel=1e-4)
