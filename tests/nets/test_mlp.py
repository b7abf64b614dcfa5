from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

import pidlearn as pid


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    """The outputs start at zero; these do not."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.double()


class TestChebyshev:
    @pytest.mark.parametrize("shape", [(2,), (2, 3), 4])
    def test_encoding_once_is_the_ordinary_call(self, shape) -> None:
        network = randomised(pid.nets.ChebyshevMLP(shape, width=8, depth=2))
        d = math.prod(network.event_shape)
        network.standardise(torch.randn(d), 1 + torch.rand(d), 1 + torch.rand(d))
        x, time = torch.randn(5, *network.event_shape).double(), torch.rand(15).double() * 2 - 1
        at_once = network.encode(x)(time)
        assert at_once.shape == (15, *network.event_shape)
        # k copies of the batch, one after another.
        torch.testing.assert_close(at_once, network(x.repeat(3, *[1] * (x.ndim - 1)), time))

    @pytest.mark.parametrize("terms", [1, 2, 5])
    def test_is_a_polynomial_in_time_of_that_degree(self, terms: int) -> None:
        network = randomised(pid.nets.ChebyshevMLP(1, width=8, depth=2, terms=terms))
        time = torch.linspace(-1, 1, 41).double()
        values = network(torch.full((41, 1), 0.3).double(), time)[:, 0].detach().numpy()
        fit = chebyshev.chebfit(time.numpy(), values, terms - 1)
        np.testing.assert_allclose(chebyshev.chebval(time.numpy(), fit), values, atol=1e-12)
        assert abs(fit[-1]) > 1e-6

    def test_units_cancel(self) -> None:
        """The same network in other units of x and of the output, set by `standardise`."""
        network = randomised(pid.nets.ChebyshevMLP(2, width=8, depth=2))
        x, time = torch.randn(6, 2).double(), torch.rand(6).double()
        before = network(x, time)
        mean, scale, out = (torch.tensor(v).double() for v in ([5.0, -1.0], [100.0, 0.1], [3.0, 7.0]))
        network.standardise(mean, scale, out)
        torch.testing.assert_close(network(mean + scale * x, time), out * before)

    def test_starts_at_zero(self) -> None:
        assert pid.nets.ChebyshevMLP(3)(torch.randn(4, 3), torch.zeros(4)).abs().max() == 0


class TestMLP:
    def test_starts_at_zero_in_the_shape_of_x(self) -> None:
        network, x = pid.nets.MLP((2, 3), width=8, depth=2), torch.randn(4, 2, 3)
        assert torch.equal(network(x, torch.ones(4)), torch.zeros(4, 2, 3))
        assert network.event_shape == (2, 3)

    def test_one_time_for_all(self) -> None:
        network, x = randomised(pid.nets.MLP(2, width=8, depth=2)), torch.randn(4, 2).double()
        one = network(x, torch.tensor([0.3]).double())
        torch.testing.assert_close(one, network(x, torch.full((4,), 0.3).double()))

    def test_without_extras(self) -> None:
        network = randomised(pid.nets.MLP(2, width=8, depth=1, fourier=0, harmonics=0))
        assert network(torch.randn(4, 2).double(), torch.ones(4).double()).shape == (4, 2)

    def test_labels(self) -> None:
        network: torch.nn.Module = randomised(pid.nets.MLP(2, width=8, depth=2, label_dim=3))
        x, time = torch.randn(4, 2).double(), torch.zeros(4).double()

        def call(*labels: int) -> Tensor:
            return network(x, time, torch.tensor(labels))

        mixed = call(0, 1, 2, 0)
        for k in range(3):
            rows = [i for i, label in enumerate((0, 1, 2, 0)) if label == k]
            torch.testing.assert_close(mixed[rows], call(k, k, k, k)[rows])
        for wrong in (-1, 3):
            with pytest.raises(ValueError, match=r"0\.\.2"):
                call(0, 1, 2, wrong)
        with pytest.raises(ValueError, match="3 class_labels for 4 samples"):
            call(0, 1, 2)
        with pytest.raises(ValueError, match="build the MLP with label_dim"):
            pid.nets.MLP(2)(torch.ones(1, 2), torch.ones(1), torch.tensor([0]))


@pytest.mark.parametrize("network", [pid.nets.MLP((2, 3)), pid.nets.ChebyshevMLP((2, 3))])
@pytest.mark.parametrize("shape", [(4, 6), (4, 2), (4, 3, 2)])
def test_another_shape(network: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"got .* takes samples of shape \(2, 3\)"):
        network(torch.ones(shape), torch.ones(4))


def test_no_time() -> None:
    with pytest.raises(ValueError, match=r"got time NoneType for x \(4, 2\)"):
        pid.nets.MLP(2)(torch.randn(4, 2), None)


class TestDirections:
    def test_sees_and_writes_its_directions_only(self) -> None:
        torch.manual_seed(0)
        network: Any = pid.nets.MLP((2, 3), width=8, depth=2, directions=2)
        basis = torch.linalg.qr(torch.randn(6, 2)).Q * torch.tensor([2.0, 0.1])
        network.orient(basis)
        torch.nn.init.normal_(network.body.out.weight)
        x, time = torch.randn(5, 2, 3), torch.rand(5)
        out = network(x, time)
        assert out.abs().max() > 0.1
        across = torch.linalg.qr(torch.cat([basis, torch.randn(6, 4)], 1)).Q[:, 2:]  # (6, 4), orthogonal to both
        torch.testing.assert_close(network(x + (torch.randn(5, 4) @ across.T).reshape(x.shape), time), out)
        assert (out.flatten(1) @ across).abs().max() < 1e-6
        # What is read is x along the directions, times their lengths.
        inside = pid.nets.MLP(2, width=8, depth=2)
        inside.load_state_dict({k: v for k, v in network.state_dict().items() if k in inside.state_dict()})
        read = inside(x.flatten(1) @ basis, time)
        torch.testing.assert_close(out.flatten(1), read @ basis.T)

    def test_may_write_others_once_it_has_learned(self) -> None:
        network: Any = pid.nets.MLP(3, width=8, depth=2, directions=1)
        assert {name for name, _ in network.named_parameters()} >= {"write.weight", "write.bias"}
        assert "basis" in dict(network.named_buffers())  # what it sees stays
        assert "directions" not in pid.nets.MLP(3).options  # descriptions of older students stay the same
