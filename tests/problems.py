"""Problems whose answer is known in closed form, and the little that many tests share."""

import itertools

import torch
from torch import Tensor, nn

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import DDPM, VE, VP, Bridge, Cosine, Linear, Number, Path, Scales
from ebbtide.core.targets import TARGETS
from ebbtide.exact.oracle import gaussian
from ebbtide.interop.diffusers import from_diffusers

MEAN, STD = 0.7, 0.5

# One of each path, with the options that samplers and targets are tested on.
PATHS: dict[str, Path] = {
    "linear": Linear(),
    "cosine": Cosine(),
    "ddpm": DDPM(),
    "vp": VP(),
    "ve": VE(10.0),
    "bridge": Bridge(),
}

# β tables that end with next to nothing of the data, but not with nothing: σ/α = 20 000, 2000, 261 and 4096 at t = 1.
TABLES: dict[str, Path] = {
    "squared_cosine": DDPM("squared_cosine"),
    "squared_cosine of 100": DDPM("squared_cosine", steps=100),
    "linear of 1100": DDPM(steps=1100),
    "zero terminal SNR": from_diffusers(
        {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    ).path,
}

# At the limit of what family-wise 1e-6 over a few hundred statistical assertions leaves each: 1e-6 / 300.
FALSE_POSITIVE = 3e-9
SIGMAS = 6.0  # |z| > 6 has probability 2e-9


def float64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def noise_like(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def last(walk):
    """The last thing an iterator yields."""
    *_, x = walk
    return x


class GaussianNetwork(nn.Module):
    """The exact network for data N(μ, s² I), in any target: the regression of a x₀ + b ε on x_t.

    With x_t = α x₀ + σ ε all three are jointly Gaussian, so y = E y + Cov(y, x_t) / Var(x_t) (x_t - E x_t). EDM's
    network sees c_in x_t and ¼ log(σ/α) instead, which on any path are those of α = 1 and σ = e^{4 clock}.
    """

    def __init__(self, path: Path, target: str, mean: float = MEAN, std: float = STD) -> None:
        super().__init__()
        self.path, self.target, self.mean, self.var = path, target, mean, std**2
        self.calls, self.spans = 0, True

    def forward(self, x_t: Tensor, t: Tensor, span: Tensor | None = None, **cond) -> Tensor:
        self.calls += 1
        if self.target == "edm":
            c = VE(1.0).at((4 * t.double()).exp(), x_t)
            x_t = x_t * (c.sigma**2 + 1).sqrt()
        else:
            c = self.path.at(t.double(), x_t)
        a, b = TARGETS[self.target](c)
        if span is not None and bool((span != 0).any()):
            return self.leading(x_t, c, span.double().reshape(-1, *[1] * (x_t.ndim - 1)), a, b)
        covariance, variance = a * c.alpha * self.var + b * c.sigma, c.alpha**2 * self.var + c.sigma**2
        return a * self.mean + covariance / variance * (x_t - c.alpha * self.mean)

    def leading(self, x_t: Tensor, c: Scales, span: Tensor, a: Number, b: Number) -> Tensor:
        """a x̂₀ + b ε̂ of the pair with α_t x̂₀ + σ_t ε̂ = x_t and, at the flow's end x_s, α_s x̂₀ + σ_s ε̂ = x_s.

        Of s only σ/(α + σ) counts, as x̂₀ and ε̂ don't depend on how x_s is scaled: α_s = 1 - τ, σ_s = τ.
        """
        tau = c.sigma / (c.alpha + c.sigma) - span
        keep = ((((1 - tau) ** 2 * self.var) + tau**2) / (c.alpha**2 * self.var + c.sigma**2)).sqrt()
        x_s = (1 - tau) * self.mean + keep * (x_t - c.alpha * self.mean)
        d = c.alpha * tau - c.sigma * (1 - tau)
        return a * (tau * x_t - c.sigma * x_s) / d + b * (c.alpha * x_s - (1 - tau) * x_t) / d


class ConditionalNetwork(nn.Module):
    """The velocity E[ε - x₀ | x_t of what is unknown, given] of a mixture of Gaussians, on the linear path."""

    def __init__(self, weights, means, roots):
        super().__init__()
        self.weights, self.means, self.roots = (
            torch.tensor(part, dtype=torch.float64) for part in (weights, means, roots)
        )
        self.covariances = self.roots @ self.roots.mT
        self.own = nn.Parameter(torch.zeros(1, dtype=torch.float64))  # whose dtype is the network's

    def draw(self, n, seed=0):
        """Rows of the mixture."""
        draw = torch.Generator().manual_seed(seed)
        part = torch.multinomial(self.weights, n, True, generator=draw)
        z = torch.randn(n, 3, generator=draw, dtype=torch.float64)
        return self.means[part] + (self.roots[part] @ z[..., None])[..., 0]

    def conditional(self, known, value):
        """Weights, means and covariances of the unknown numbers, one row of `value`s of the known ones each."""
        found = []
        for w, m, C in zip(self.weights, self.means, self.covariances):
            gain = C[~known][:, known] @ C[known][:, known].inverse()
            off = value - m[known]
            log = -0.5 * (off @ C[known][:, known].inverse() * off).sum(1) - 0.5 * C[known][:, known].logdet()
            found.append((w.log() + log, m[~known] + off @ gain.T, C[~known][:, ~known] - gain @ C[known][:, ~known]))
        log, means, covariances = zip(*found)
        return torch.stack(log, 1).softmax(1), torch.stack(means, 1), torch.stack(covariances)

    def forward(self, x, t, given=None):
        given = torch.full_like(x, torch.nan) if given is None else given
        y, t = torch.zeros_like(x), t.double().expand(len(x))
        for pattern in itertools.product((False, True), repeat=3):
            known = torch.tensor(pattern)
            rows = (given.isnan() != known).all(1)
            if known.all() or not rows.any():
                continue
            a, s, x_t = 1 - t[rows], t[rows], x[rows][:, ~known]
            w, means, covariances = self.conditional(known, given[rows][:, known])
            V = a[:, None, None, None] ** 2 * covariances + (s**2)[:, None, None, None] * torch.eye(int((~known).sum()))
            off = x_t[:, None] - a[:, None, None] * means
            solved = torch.linalg.solve(V, off[..., None])
            log = w.log() - 0.5 * (off[..., None] * solved).sum((2, 3)) - 0.5 * V.logdet()
            x0 = means + a[:, None, None] * (covariances @ solved)[..., 0]
            x0 = (log.softmax(1)[..., None] * x0).sum(1)
            own = y[rows]
            own[:, ~known] = (x_t - a[:, None] * x0) / s[:, None] - x0
            y[rows] = own
        return y


def exact(path: Path, target: str = "velocity") -> Denoiser:
    """A Denoiser whose network is the exact one for N(0.7, 0.25)."""
    return Denoiser(GaussianNetwork(path, target), path, target)


def oracle(path: Path, dim: int = 1):
    """The same distribution as an Oracle."""
    return gaussian(path, torch.full((dim,), MEAN, dtype=torch.float64), STD)


class Told:
    """Another denoiser that keeps, of every evaluation, how many rows it had and what came beside x and t."""

    gaussian_end = True

    def __init__(self, denoiser) -> None:
        self.denoiser, self.path, self.told = denoiser, denoiser.path, []

    def __call__(self, x_t: Tensor, t, /, **cond):
        self.told.append((len(x_t), cond))
        return self.denoiser(x_t, t)

    def always(self, label: Tensor) -> bool:
        """Whether there was an evaluation, and each had this label alone, for all of its rows."""
        alike = lambda n, own: len(own) == n and bool(torch.isin(own, label).all())
        return bool(self.told) and all(cond.keys() == {"label"} and alike(n, cond["label"]) for n, cond in self.told)


def std_at(path: Path, t: float) -> float:
    """√(α² s² + σ²), of x_t."""
    c = path.scales(float64(t))
    return float((c.alpha * STD).square().add(c.sigma.square()).sqrt())


def exact_flow(path: Path, x: Tensor, t: float, s: float) -> Tensor:
    """The probability flow of a Gaussian keeps (x - α μ) / std(x) as it is."""
    alpha = path.scales(float64(t, s)).alpha
    return alpha[1] * MEAN + std_at(path, s) / std_at(path, t) * (x - alpha[0] * MEAN)


def fill(network: nn.Module, std: float = 0.2) -> nn.Module:
    """Weights everywhere: what starts at 0 would hide what comes before it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=std)
    return network.eval()


def observe(b: int, shapes: dict[str, tuple[int, ...]], seed: int = 1) -> dict[str, Tensor]:
    """A batch of what a policy sees, in these shapes."""
    draw = torch.Generator().manual_seed(seed)
    every = {
        "state": lambda shape: torch.randn(shape, generator=draw),
        "images": lambda shape: torch.randint(256, shape, generator=draw, dtype=torch.uint8),
        "prompt": lambda shape: torch.randint(1, 257, shape, generator=draw),
    }
    return {name: every[name]((b, *shape)) for name, shape in shapes.items()}
