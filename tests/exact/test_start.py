"""The Gaussians that a network starts from: before its first step it is their closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ebbtide import flow
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import PATHS
from ebbtide.data.prepared import TensorData
from ebbtide.exact.start import FLOOR, Start, chosen, drawn, fit_mixture, shrunk
from ebbtide.kinds.runs import begin
from ebbtide.networks.mlp import MLP

MEANS = np.array([[3.0, -2.0, 0.0], [-3.0, 2.0, 1.0], [0.0, 0.0, -4.0]])
COVARIANCES = np.array(
    [
        [[1.0, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 0.2]],
        [[0.4, -0.2, 0.1], [-0.2, 0.6, 0.0], [0.1, 0.0, 0.3]],
        np.eye(3) * 0.25,
    ]
)
WEIGHTS = np.array([0.5, 0.2, 0.3])


def rows_of(n, seed=0):
    rng = np.random.default_rng(seed)
    k = rng.choice(3, n, p=WEIGHTS)
    x = np.stack([rng.multivariate_normal(MEANS[i], COVARIANCES[i]) for i in k])
    return torch.tensor(x), torch.tensor(k)


def closed(x, alpha, sigma, weights, means, covariances):
    """E[x₀ | x_t] of a mixture, with matrices inverted as they stand, and the density of x_t."""
    found, joint = [], []
    for w, m, C in zip(weights, means, covariances, strict=True):
        V = alpha**2 * C + sigma**2 * np.eye(len(m))
        offset = x - alpha * m
        found.append(m + alpha * offset @ np.linalg.solve(V, C))
        square = (offset * np.linalg.solve(V, offset.T).T).sum(1)
        joint.append(w * np.exp(-square / 2) / np.sqrt(np.linalg.det(2 * np.pi * V)))
    r = np.array(joint) / np.sum(joint, 0)
    return (r[..., None] * np.array(found)).sum(0), np.sum(joint, 0)


@pytest.mark.parametrize("path", ["linear", "cosine", "vp", "ve"])
def test_an_untrained_network_is_the_closed_form_on_every_path_with_every_target(path):
    """In float64; with one Gaussian, with three, and with a class for each, at an even time and one per example."""
    start = Start(PATHS[path](), 3, 3, classes=3).double()
    start.set(*map(torch.tensor, (WEIGHTS, MEANS, COVARIANCES)))
    single = Start(PATHS[path](), 3).double().set(torch.ones(1), *(torch.tensor(p[:1]) for p in (MEANS, COVARIANCES)))
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    for target in ("velocity", "noise", "v", "x0", "edm"):
        for t in (0.2, 0.7, torch.linspace(0.1, 0.9, 12, dtype=torch.float64)):
            c = start.path.at(t, x)
            alpha, sigma = (float(one) if not isinstance(one, torch.Tensor) else one.numpy() for one in c[1:3])
            for base, label, parts in ((single, None, [0]), (start, None, [0, 1, 2]), (start, 1, [1])):
                network = MLP(3, 0 if label is None else 3, width=4, depth=1).double()
                denoiser = Denoiser(network, start.path, target, base=base)
                cond = {} if label is None else {"label": torch.full((12,), label)}
                x0, noise = denoiser(x, t, **cond)
                want = []
                for i in range(12):
                    at = [float(np.asarray(one).reshape(-1)[i if np.ndim(one) else 0]) for one in (alpha, sigma)]
                    shares = WEIGHTS[parts] if len(parts) > 1 else np.ones(1)
                    want.append(closed(x[i : i + 1].numpy(), *at, shares, MEANS[parts], COVARIANCES[parts])[0][0])
                cell = f"{target}, t = {t}, {parts}"
                np.testing.assert_allclose(x0.detach(), want, atol=1e-9, err_msg=cell)
                np.testing.assert_allclose((c.alpha * x0 + c.sigma * noise).detach(), x, atol=1e-9, err_msg=cell)


def test_a_null_label_leaves_every_part_in():
    start = Start(PATHS["linear"](), 3, 3, classes=3).double()
    start.set(*map(torch.tensor, (WEIGHTS, MEANS, COVARIANCES)))
    x = torch.zeros(5, 3, dtype=torch.float64)
    both = start(x, 0.5, label=torch.tensor([3, 0, 3, 2, 3]))
    torch.testing.assert_close(both.x0[[0, 2, 4]], start(x, 0.5).x0[[0, 2, 4]])
    assert (both.x0[[1, 3]] - start(x, 0.5).x0[[1, 3]]).abs().amin() > 0.03


def table(folder, n=60):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 2)) @ [[1.0, 0.8], [0.0, 0.6]]
    kinds = np.array(["a", "b"])[(x[:, 0] > 0).astype(int)]
    lines = [f"{a:.4f},{b:.4f},{k}" for (a, b), k in zip(x, kinds, strict=True)]
    (folder / "table.csv").write_text("\n".join(["u,v,kind", *lines]))
    return str(folder / "table.csv")


def test_a_run_begins_as_the_copula_of_its_rows(tmp_path):
    """Before step 1 the run is N(m, C) of the rows' ranks: with C as sklearn shrinks it, in float32."""
    covariance = pytest.importorskip("sklearn.covariance")
    recipe = flow(data=table(tmp_path), steps=4, held_out=0.0)
    start, data = begin(recipe)
    assert start.recipe.gaussians == 1
    assert start.begins == "Gaussian copula"
    z = drawn(data)[0]
    mean, spread = z.mean(0), shrunk(z, len(data))
    assert np.linalg.eigvalsh(spread).min() > 0
    alone = covariance.LedoitWolf().fit(z[: len(data)].numpy()).covariance_
    np.testing.assert_allclose(shrunk(z[: len(data)]), alone, atol=1e-9)
    values, basis = torch.linalg.eigh(spread)
    spread = basis @ torch.diag(values.clamp(min=FLOOR)) @ basis.T
    x = torch.randn(9, z.shape[1], generator=torch.Generator().manual_seed(1))
    want, _ = closed(x.double().numpy(), 0.6, 0.4, [1.0], mean.numpy()[None], spread.numpy()[None])
    with torch.no_grad():
        np.testing.assert_allclose(start.denoiser(x, 0.4).x0, want, atol=2e-5)
    assert begin(replace(recipe, gaussians=0))[0].denoiser.base is None
    assert begin(flow(data="two_moons", points=100))[0].denoiser.base is None
    assert begin(flow(data=table(tmp_path, n=1000)))[0].recipe.gaussians == 0
    assert begin(flow(data=table(tmp_path, n=1000), gaussians=2))[0].recipe.gaussians == 2


def test_a_class_has_a_gaussian_of_its_own(tmp_path):
    recipe = flow(data=table(tmp_path), label="kind", conditional=True, steps=4, held_out=0.0)
    start, data = begin(recipe)
    base = start.denoiser.base
    assert (base.classes, len(base.means)) == (2, 2)
    z, labels = drawn(data)
    near = torch.stack([z[labels == k].mean(0) for k in range(2)])
    assert (base.means - near).abs().max() < 0.1  # one row's worth of all in 30
    assert base.weights.sum() == pytest.approx(1)


def test_the_parts_of_a_mixture_are_found():
    """2000 rows of three Gaussians that lie 5 σ apart: weights to 4 σ = 0.045, means to 4 σ/√400 = 0.2."""
    z, k = rows_of(2000)
    for labels in (None, k):
        weights, means, covariances = fit_mixture(z, 3, labels=labels)
        order = torch.cdist(torch.tensor(MEANS), means).argmin(1)
        assert sorted(order.tolist()) == [0, 1, 2]
        np.testing.assert_allclose(weights[order], WEIGHTS, atol=0.045)
        np.testing.assert_allclose(means[order], MEANS, atol=0.2)
        np.testing.assert_allclose(covariances[order], COVARIANCES, atol=0.2)


def test_as_many_parts_as_the_rows_not_seen_ask_for():
    """Of three far clusters three or a little more; of one Gaussian one. An example: fixed seeds."""
    z, other = rows_of(300)[0], rows_of(100, 1)[0]
    assert 3 <= chosen(TensorData(z), TensorData(other)) <= 4
    rng = torch.Generator().manual_seed(2)
    data = [TensorData(torch.randn(n, 4, generator=rng)) for n in (300, 100)]
    assert chosen(*data) == 1
    assert chosen(TensorData(z[:11]), TensorData(other)) == 1  # six rows for each, at least


def test_far_from_all_data_a_network_sees_the_nearest_and_the_base_leads_back():
    """A network that pushes outwards does so up to 5 σ alone, along each axis of the whole: here of x and of y."""

    class Outwards(torch.nn.Module):
        def forward(self, x, t):
            return -50 * x

    weights, means = torch.tensor([0.5, 0.5]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    for target, path in (("velocity", "linear"), ("noise", "ve")):
        base = Start(PATHS[path](), 2, 2).set(weights, means, torch.eye(2).repeat(2, 1, 1) * 0.25)
        denoiser = Denoiser(Outwards(), base.path, target, base=base)
        (c,) = denoiser.path.along([0.5])
        far = 5 * (c.alpha**2 * torch.tensor([1.25, 0.25]) + c.sigma**2).sqrt()
        x = torch.tensor([[1e3, 0.5], [-0.9, -1e3], [0.9, 0.9]]) * far
        edge = torch.tensor([[1.0, 0.5], [-0.9, -1.0], [0.9, 0.9]]) * far
        own = denoiser.output(c, x) - base(x, c).mix(*denoiser.row(c))
        torch.testing.assert_close(own, -50 * edge, rtol=1e-3, atol=1e-1)
