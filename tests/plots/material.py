"""A comparison made of exact oracles, so that figures can be tested and looked at without training anything."""

import dataclasses
import functools

import numpy as np
import torch

from ebbtide import DDPM, Draws, Linear
from ebbtide.exact import oracle
from ebbtide.metrics import Measurement
from ebbtide.metrics.floor import beside_known
from ebbtide.plots import animation, style
from ebbtide.plots.colours import apart
from ebbtide.plots.study import Comparison, Method, Sampling
from ebbtide.samplers import sample, trajectory
from ebbtide.samplers.walks import slope

NAMES = {"diffusion": "DDPM", "flow": "Flow matching"}


def means_of(d):
    """Three modes; the first two columns are the familiar (2, 2), (-2, 2), (0, -2)."""
    means = torch.zeros(3, max(d, 2), dtype=torch.float64)
    means[:, :2] = torch.tensor([(2.0, 2), (-2, 2), (0, -2)])
    for k in range(2, d):
        means[:, k] = torch.tensor([(-1.5) ** (k % 2 + 1), 0.5 * k, -0.7])
    return means[:, :d]


def measurement(name, value, floor, better="lower"):
    spread = 0.05 * abs(floor) + 1e-4
    bounds = value, value - spread, value + spread
    return Measurement(
        name, *bounds, floor, floor - spread, floor + spread, better, "", *beside_known(bounds, floor, better)
    )


@functools.cache
def comparison(d=2, n=3000, m=400, labelled=False, scale=1.8):
    """Data of d columns, in units in which the noise at t = 1 has the standard deviation `scale`."""
    means, std, generator = means_of(d), 0.3, torch.Generator().manual_seed(0)

    def real(count):
        labels = torch.randint(3, (count,), generator=generator)
        return (means[labels] + std * torch.randn(count, d, generator=generator, dtype=torch.float64)).numpy(), labels

    paths = {"diffusion": DDPM(), "flow": Linear()}
    truths = {key: oracle.mixture(path, means / scale, std / scale) for key, path in paths.items()}
    first = Draws.first(m, 1)
    methods, samplings, quality = [], [], {}
    for key, truth in truths.items():
        walk = list(trajectory(truth, (d,), draws=first, steps=40, sampler="heun", grid="uniform"))
        points = np.stack([x.numpy() * scale for _, x in walk])
        evolution = [
            (step, points[-1] * (1 - 2.0 ** -(1 + i)) + 2.5 * 0.6**i * points[0] / scale)
            for i, step in enumerate(range(0, 3001, 250))
        ]
        fields = []
        axes = torch.linspace(-5, 5, 15, dtype=torch.float64)
        grid = torch.cartesian_prod(axes, axes) if d > 1 else torch.linspace(-5, 5, 60, dtype=torch.float64)[:, None]
        grid = torch.cat([grid, torch.zeros(len(grid), d - grid.shape[1], dtype=torch.float64)], 1)
        for t in (0.9, 0.6, 0.3, 0.1):
            u = slope(truth, grid / scale, t) * scale
            c = paths[key].scales(torch.tensor(t, dtype=torch.float64))
            x_t = c.alpha * torch.tensor(real(800)[0]) + c.sigma * scale * torch.randn(800, d, generator=generator)
            fields.append((t, grid.numpy(), u.numpy(), x_t.numpy()))
        steps = np.arange(1, 3001, 3)
        losses = (0.35 if key == "diffusion" else 0.9) * (1 + 3 * np.exp(-steps / 120))
        losses = losses * np.random.default_rng(1).lognormal(0, 0.12, len(steps))
        methods.append(
            Method(
                key,
                NAMES[key],
                style.colour(key),
                steps,
                losses,
                9.3,
                evolution,
                np.array([t for t, _ in walk]),
                points,
                fields,
            )
        )
        wanted = [("Heun", "heun", 10), ("Heun", "heun", 50), ("Euler", "euler", 100)]
        if key == "diffusion":
            wanted = [("DDPM ancestral", "ddpm", 200), ("DDIM", "ddim", 50), *wanted]
        for label, sampler, count in wanted:
            x = sample(truth, (d,), draws=Draws.first(n, 7), steps=count, sampler=sampler).numpy() * scale
            evaluations = count * (2 if sampler == "heun" else 1) - (sampler == "heun")
            error = 0.0085 + 0.9 / evaluations**1.5
            rows = [
                measurement("within-mode sliced W2", error, 0.0085),
                measurement("outliers beyond 4 σ", 0.0004 + 0.1 / evaluations, 0.0004),
                measurement("mean log-density", -1.53 - 1 / evaluations, -1.53, "equal"),
                measurement("MMD²", 1e-5 + 0.01 / evaluations, 1e-5),
                *(measurement(f"fraction in mode {k}", 0.33 + 0.002 * k, 0.333, "equal") for k in range(3)),
            ]
            labels = np.abs(x[:, None] - means.numpy()).sum(2).argmin(1) if labelled else None
            samplings.append(
                Sampling(
                    key, f"{label}, {count} steps", sampler, count, evaluations, evaluations * 0.012, x, labels, rows
                )
            )
        for sampler in ("euler", "heun", *(("ddim",) if key == "diffusion" else ())):
            order, shift = (2, 3.0) if sampler == "heun" else (1, 1.0)
            counts = [4, 8, 16, 32, 64, 128]
            values = [0.0085 + shift * (1.4 if key == "diffusion" else 0.5) / k**order for k in counts]
            name = {"ddim": "DDIM"}.get(sampler, sampler.capitalize())
            quality[f"{NAMES[key]} · {name}"] = list(zip(counts, values))
    x, labels = real(n)
    return Comparison(
        title="Diffusion and flow matching on three Gaussians",
        command="ebbtide compare three_gaussians --out runs/three",
        real=x,
        limits=(-3.5, 3.5),
        methods=methods,
        samplings=samplings,
        quality=quality,
        quality_metric="within-mode sliced W2",
        floor=(0.0080, 0.0092),
        real_labels=labels.numpy() if labelled else None,
        classes=("right", "left", "bottom") if labelled else (),
        columns=("x", "y", "z", "u", "w")[:d],
        settings={
            "data": "three_gaussians, 10,000 points",
            "network": "mlp, width 64",
            "training": "3,000 steps of 512",
        },
    )


def several(count, d=2, **changed):
    """The same comparison of more methods, or of the first alone: its two, again and again."""
    c = comparison(d=d, n=1500, m=120)
    keys = ["diffusion", "flow", *(f"other-{k}" for k in range(count))][:count]
    methods, samplings, quality = [], [], {}
    for k, (key, colour) in enumerate(zip(keys, apart(keys), strict=True)):
        first = c.methods[k % 2]
        name = first.name if k < 2 else f"Another method {k}"
        methods.append(dataclasses.replace(first, key=key, name=name, colour=colour))
        samplings += [dataclasses.replace(s, method=key) for s in c.samplings if s.method == first.key]
        quality |= {f"{name} · {end}": line for label, line in c.quality.items()
                    if (end := label.partition(f"{first.name} · ")[2])}  # fmt: skip
    return dataclasses.replace(c, methods=methods, samplings=samplings, quality=quality, **changed)


def small(patch):
    """Figures of few pixels and films of six frames, where what is drawn isn't looked at."""
    patch.setattr(style, "DPI", 50)
    patch.setattr(animation, "FRAME_DPI", 50)
    patch.setattr(animation, "MOST_FRAMES", 6)


def inside(figure, drawn=False):
    """Every text and panel title is on the page. drawn: the figure has been saved, which draws it."""
    if not drawn:
        figure.canvas.draw()
    texts = [*figure.texts, *(t for ax in figure.axes for t in (*ax.texts, ax.title, ax.xaxis.label))]
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        texts += [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high and t.label1.get_visible()]
    for text in texts:
        box = text.get_window_extent()
        if text.get_text() and text.get_visible() and box.width:
            assert box.x0 >= -1, text
            assert box.x1 <= figure.bbox.x1 + 1, text
            assert box.y0 >= -2, text
            assert box.y1 <= figure.bbox.y1 + 1, text


# ── Chunks beside recordings ──────────────────────────────────────────────────────────────────────────────────────────
