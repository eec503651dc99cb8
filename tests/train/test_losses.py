"""Each term of the objective against its formula."""

import pytest
import torch
import torch.nn.functional as F

from mmif.train import losses


def test_hinge_is_minus_the_mean_logit():
    logits = torch.tensor([1.0, -3.0])
    assert losses.generator_loss(logits, "hinge").item() == 1.0
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 0.0])
    assert losses.discriminator_loss(real, fake, "hinge").item() == pytest.approx(0.5)


def test_nsgan_is_cross_entropy():
    logits = torch.randn(5)
    ones, zeros = torch.ones(5), torch.zeros(5)
    expected = F.binary_cross_entropy_with_logits(logits, ones)
    assert losses.generator_loss(logits, "nsgan").item() == pytest.approx(expected.item())
    both = (expected + F.binary_cross_entropy_with_logits(-logits, zeros)) / 2
    assert losses.discriminator_loss(logits, -logits, "nsgan").item() == pytest.approx(both.item())


def test_plain_edge_loss_is_binary_cross_entropy():
    p, e = torch.rand(2, 1, 4, 4), (torch.rand(2, 1, 4, 4) > 0.7).float()
    assert torch.allclose(losses.edge_loss(p, e, "plain"), F.binary_cross_entropy(p, e))


def test_balanced_edge_loss_weighs_rare_edges_as_much_as_the_rest():
    edge = torch.zeros(1, 1, 10, 10)
    edge[..., 0, 0] = 1
    p = torch.full_like(edge, 0.5, requires_grad=True)
    losses.edge_loss(p, edge, "balanced").backward()
    on_edge, elsewhere = p.grad[edge > 0].sum(), p.grad[edge == 0].sum()
    assert on_edge.item() == pytest.approx(-elsewhere.item(), rel=1e-4)


@pytest.mark.parametrize("form", ["plain", "balanced"])
def test_edge_loss_is_torchs_where_it_is_defined(form):
    p, edge = torch.rand(2, 1, 16, 16, requires_grad=True), (torch.rand(2, 1, 16, 16) > 0.9).float()
    weight = torch.where(edge > 0.5, 1 - edge.mean(), edge.mean()) if form == "balanced" else None
    expected, loss = F.binary_cross_entropy(p.clamp(1e-6, 1 - 1e-6), edge, weight), losses.edge_loss(p, edge, form)
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=0)
    gradients = [torch.autograd.grad(value, p)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=0)


@pytest.mark.parametrize("form", ["plain", "balanced"])
def test_edge_loss_lets_nan_through(form):
    assert losses.edge_loss(torch.full((1, 1, 2, 2), torch.nan), torch.eye(2)[None, None], form).isnan()


def test_edge_loss_is_finite_at_the_ends():
    p = torch.tensor([[[[0.0, 1.0]]]])
    assert torch.isfinite(losses.edge_loss(p, 1 - p, "plain"))


def test_void_pixels_do_not_count():
    logits, labels = torch.randn(1, 3, 2, 2), torch.tensor([[[0, 1], [2, 255]]])
    rows = logits[0].flatten(1).t()[:3]
    assert torch.allclose(losses.seg_loss(logits, labels), F.cross_entropy(rows, torch.tensor([0, 1, 2])))
    assert losses.seg_loss(logits, torch.full((1, 2, 2), 255)).item() == 0.0


def test_fidelity():
    ws, mean = torch.ones(2, 3, 4), torch.zeros(4)
    assert losses.fidelity_loss(ws, mean, "mse").item() == 1.0
    assert losses.fidelity_loss(ws, mean, "norm").item() == pytest.approx(12**0.5)
    assert losses.fidelity_loss(mean.expand(2, 3, 4), mean, "mse").item() == 0.0


def test_targets_keep_thin_edges():
    image, edge = torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    edge[0, 0, 5] = 1
    labels = torch.arange(64).view(1, 8, 8)
    small, edges, ids = losses.targets_at(2, image, edge, labels)
    assert torch.allclose(small, F.avg_pool2d(image, 4))
    assert edges[0, 0].tolist() == [[0, 0], [1, 1]]
    assert ids.tolist() == [[[18, 22], [50, 54]]]
