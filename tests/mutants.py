"""The mutation check, `make mutants`: slips planted in the core one at a time, every one of which the tests must find.

A slip is one plausible mistake: a text that stands once in a file, what stands there instead, and what is wrong with it
in words. It goes into a copy of src, tests and docs, never into the working tree. The tests most likely to notice run
first; where they don't, the whole fast suite does, and a slip that passes it too has survived: a test is missing.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
CORE = Path("src", "ebbtide")
# Of the repository rather than of the core, and test_mutants would find any slip by its missing text alone.
BESIDE = ("test_mutants.py", "test_repository.py", "test_readme.py", "test_examples.py", "benchmarks")
SECONDS = {"likely": 600, "all": 3600}


class Slip(NamedTuple):
    """One mistake. likely: pytest's arguments for the tests that should notice; none means the file's own tests."""

    file: str
    text: str
    instead: str
    wrong: str
    likely: tuple[str, ...] = ()

    @property
    def tests(self) -> tuple[str, ...]:
        folder, _, name = self.file.rpartition("/")
        return self.likely or (str(Path("tests", folder, f"test_{name}")),)


class Verdict(NamedTuple):
    """What became of a slip: found (by a test), survived, or error (the row itself is at fault)."""

    slip: Slip
    outcome: str
    by: str
    seconds: float


# What should notice the slips of several files.
TOLD = ("tests/samplers/test_all.py::test_the_network_is_told_the_label_at_every_evaluation",)
DRAWN = ("tests/cli/test_sample.py",)
LEFT = ("tests/training/test_run.py::test_a_network_drops_out_in_training_and_not_in_snapshots",)

SLIPS = (
    # samplers/ddim.py
    Slip("samplers/ddim.py", "tau2 = eta**2 *", "tau2 = eta *", "η is not squared"),
    Slip("samplers/ddim.py", "then.alpha) ** 2, 0.0)", "then.alpha), 0.0)", "β: the kept part's variance not squared"),
    Slip("samplers/ddim.py", "beta * (then.sigma / now.sigma) ** 2", "beta * (then.sigma / now.sigma)", "β̃ with σ_s/σ_t unsquared"),
    Slip(
        "samplers/ddim.py",
        "mix(then.alpha, math.sqrt(max(then.sigma**2 - tau2, 0)))",
        "mix(then.alpha, then.sigma)",
        "fresh noise added on top of all of σ_s",
    ),
    Slip(
        "samplers/ddim.py",
        "mix(then.alpha, math.sqrt(max(then.sigma**2 - tau2, 0)))",
        "mix(then.alpha, math.sqrt(max(now.sigma**2 - tau2, 0)))",
        "σ_t where σ_s belongs",
    ),
    Slip("samplers/ddim.py", "mix(then.alpha, math.sqrt(max(then.sigma**2 - tau2, 0)))", "mix(now.alpha, math.sqrt(max(then.sigma**2 - tau2, 0)))", "α_t where α_s belongs"),
    Slip("samplers/ddim.py", 'beta if variance == "beta" else tau2', 'tau2 if variance == "beta" else beta', "the two variances of DDPM swapped"),
    Slip("samplers/ddim.py", "if then.sigma > 0 else x", "if now.sigma > 0 else x", "noise added at the last step"),
    # samplers/ode.py
    Slip("samplers/ode.py", "((), (1.0,)), (1 / 2, 1 / 2))", "((), (1.0,)), (1 / 3, 2 / 3))", "Heun's weights"),
    Slip("samplers/ode.py", "(1 / 6, 1 / 3, 1 / 3, 1 / 6)", "(1 / 6, 1 / 6, 1 / 2, 1 / 6)", "RK4's weights"),
    Slip("samplers/ode.py", "(2 / 9, 1 / 3, 4 / 9)", "(2 / 9, 4 / 9, 1 / 3)", "Ralston's weights"),
    Slip("samplers/ode.py", "else start + c * (end", "else start + c * c * (end", "a stage at the wrong time"),
    Slip("samplers/ode.py", "RK4, RALSTON3, clock", "RK4, EULER, clock", "RK4's last step by a method of order 1"),
    Slip("samplers/ode.py", "return x if end.size == 1 else x * end.size", "return x", "flow clock: y returned for x"),
    Slip("samplers/ode.py", "denoiser(x if stage.size == 1 else x * stage.size,", "denoiser(x,", "flow clock: y for x"),
    Slip("samplers/ode.py", "-1.0, 1.0) for c, tau", "1.0, -1.0) for c, tau", "flow clock: the slope's sign"),
    Slip("samplers/ode.py", "h, slopes = end.clock - first.clock", "h, slopes = first.clock - end.clock", "h's sign"),
    # samplers/multistep.py
    Slip(
        "samplers/multistep.py",
        '[estimate.x0 if scheme.form == "x0" else estimate.noise, *history[: depth - 1]]',
        '[*history[: depth - 1], estimate.x0 if scheme.form == "x0" else estimate.noise]',
        "the history's order reversed",
    ),
    Slip("samplers/multistep.py", "*history[: depth - 1]", "*history[: depth - 2]", "an estimate forgotten too early"),
    Slip("samplers/multistep.py", "_apply(row, start, history)", "_apply(row, x, history)", "corrects from its end"),
    Slip("samplers/multistep.py", "scheme.correct[i - 1]", "scheme.correct[i - 2]", "the corrector's row off by one"),
    Slip("samplers/multistep.py", "if i > first and", "if i > first + 1 and", "the first correction left out"),
    Slip("samplers/multistep.py", "row.noise, i)", "row.noise, 0)", "the same noise at every step"),
    # samplers/exponential.py
    Slip(
        "samplers/exponential.py",
        "w = fall[:, None] + (1 - fall[:, None])",
        "w = (1 - fall[:, None])",
        "the integral's lower limit forgotten",
    ),
    Slip("samplers/exponential.py", "max(i - own[i], -1)", "max(i - own[i] + 1, -1)", "one estimate too few"),
    Slip("samplers/exponential.py", "[i + 1, *past]", "[*past, i + 1]", "the corrector's weights out of order"),
    Slip("samplers/exponential.py", "a.ratio * (f - 1)", "a.ratio * (1 - f)", "noise form: the integral's sign"),
    Slip("samplers/exponential.py", "and order > 2:", "and order > 3:", "order 3 starts by the ramp"),
    Slip(
        "samplers/exponential.py",
        "(_FIRST[order], order - 2) if corrector",
        "(_FIRST[order - 1], order - 2) if corrector",
        "with the corrector, first steps of an order too low",
    ),
    Slip("samplers/exponential.py", "return 1 - 1 / (1 + ratio)", "return 1 - 1 / (1 + ratio**2)", "the flow clock"),
    # samplers/dpm_solver.py
    Slip("samplers/dpm_solver.py", "extra = h / (2 * before)", "extra = before / (2 * h)", "h/h' inverted"),
    Slip(
        "samplers/dpm_solver.py",
        "(gain * (1 + extra), -gain * extra)",
        "(gain * (1 - extra), gain * extra)",
        "extrapolates backwards",
    ),
    Slip("samplers/dpm_solver.py", "churn = fall ** (eta**2)", "churn = fall**eta", "η is not squared"),
    Slip("samplers/dpm_solver.py", "(1 - churn * fall)", "(1 - fall)", "η left out of the estimate's share"),
    Slip("samplers/dpm_solver.py", "max(1 - churn**2, 0.0)", "max(1 - churn, 0.0)", "the noise's variance"),
    Slip(
        "samplers/dpm_solver.py",
        "math.sqrt(now.ratio * then.ratio)",
        "(now.ratio + then.ratio) / 2",
        "half-way in σ/α, not in λ",
    ),
    # samplers/unipc.py
    Slip("samplers/unipc.py", "return [0.5]", "return [1.0]", "the ½ of a single unknown"),
    Slip("samplers/unipc.py", '-h if variant == "bh1" else', '-h if variant == "bh2" else', "B(h): variants swapped"),
    Slip(
        "samplers/unipc.py",
        "(math.log(now.ratio) - math.log(nodes[j].ratio)) / h",
        "(math.log(nodes[j].ratio) - math.log(now.ratio)) / h",
        "r_m's sign",
    ),
    Slip("samplers/unipc.py", "math.factorial(power + 1)", "math.factorial(power)", "φ's recurrence off by one"),
    Slip("samplers/unipc.py", "weights[here] -= share", "weights[here] += share", "differences turned into sums"),
    # samplers/edm.py
    Slip(
        "samplers/edm.py",
        "math.sqrt(up.ratio**2 - now.ratio**2)",
        "(up.ratio - now.ratio)",
        "the raised noise's variance: (r̂ - r)² for r̂² - r²",
    ),
    Slip("samplers/edm.py", "min(churn / len(steps)", "min(churn / (len(steps) + 1)", "γ: times counted, not steps"),
    Slip("samplers/edm.py", "walk.noised(x * (up.alpha / now.alpha),", "walk.noised(x,", "α left as it was"),
    Slip("samplers/edm.py", "walk.estimate(x_s, then)", "walk.estimate(x_s, now)", "second stage at wrong time"),
    Slip("samplers/beyond/restart.py", "grid[top : bottom + 1]", "grid[top:bottom]", "restart stops a step above where it began"),
    Slip("samplers/beyond/restart.py", "grid[top], again)", "grid[top], 0)", "all restarts with the same noise"),
    # samplers/sde.py
    Slip("samplers/sde.py", "max(2 * c.sigma * c.sigma_dot", "max(c.sigma * c.sigma_dot", "g² without its 2"),
    Slip("samplers/sde.py", "g2[i] / (2 * now.sigma)", "g2[i] / now.sigma", "the score's drift without its ½"),
    Slip("samplers/sde.py", "now.sigma_dot + g2[i]", "now.sigma_dot - g2[i]", "the score's drift with the wrong sign"),
    Slip("samplers/sde.py", "math.sqrt(g2[i] * h)", "math.sqrt(g2[i]) * h", "noise of h, not √h"),
    Slip("samplers/beyond/langevin.py", "math.sqrt(1 - c**2)", "math.sqrt(1 - c)", "Langevin noise of the wrong variance"),
    Slip("samplers/beyond/langevin.py", "c * then.sigma)", "then.sigma)", "the corrector doesn't shrink what noise there is"),
    Slip("samplers/beyond/langevin.py", "first + 1 + again", "first + again", "the corrector takes the predictor's noise again"),
    # samplers/beyond/dopri5.py
    Slip("samplers/beyond/dopri5.py", "22 / 525, -1 / 40)", "22 / 525, 1 / 40)", "the error estimate's last weight"),
    Slip("samplers/beyond/dopri5.py", "** -0.2)", "** -2.0)", "the step controller's exponent"),
    Slip("samplers/beyond/dopri5.py", "good = error <= 1", "good = error <= 10", "steps are accepted that failed"),
    Slip("samplers/beyond/dopri5.py", "k.index_copy(0, done, stages[-1]", "k.index_copy(0, done, stages[0]", "an old slope"),
    Slip("samplers/beyond/dopri5.py", "name: value[which] if", "name: value[: len(which)] if", "other samples' conditions"),
    Slip("samplers/beyond/dopri5.py", "18 * x + 14 * y", "14 * x + 18 * y", "the dense output's cubic term"),
    Slip("samplers/beyond/dopri5.py", "square().mean(1)", "square().sum(1)", "errors summed over elements, not averaged"),
    # inverse/repaint.py
    Slip("inverse/repaint.py", "math.sqrt(transition_variance(start, end))", "transition_variance(start, end)", "going back: β for √β"),
    Slip("inverse/repaint.py", "+ again) + 2)", "+ again))", "going back with noise that was used already"),
    Slip("inverse/repaint.py", "torch.where(mask, walk.noised(then.alpha * known, then.sigma, address + 1), x)", "torch.where(mask, x, walk.noised(then.alpha * known, then.sigma, address + 1))", "the mask inverted"),
    Slip("inverse/repaint.py", "walk.noised(then.alpha * known", "walk.noised(now.alpha * known", "known elements with α_t"),
    # targets.py
    Slip("core/targets.py", "return -c.sigma, c.alpha", "return c.sigma, -c.alpha", "v's sign"),
    Slip("core/targets.py", "return c.alpha_dot, c.sigma_dot", "return c.sigma_dot, c.alpha_dot", "α̇ and σ̇ swapped"),
    Slip("core/targets.py", "return 0.0, -1 / c.sigma", "return 0.0, 1 / c.sigma", "the score target's sign"),
    Slip("core/targets.py", "mix(0.0, -1 / c.sigma)", "mix(0.0, -1.0)", "the score without its 1/σ"),
    Slip("core/targets.py", "d = c.alpha * b - c.sigma * a", "d = c.alpha * b + c.sigma * a", "the determinant"),
    Slip("core/targets.py", "c.sigma / (data_std * norm)", "c.sigma * data_std / norm", "EDM's row with σ_d inverted"),
    Slip("core/targets.py", "flatten() / 4", "flatten() / 2", "EDM's clock, of a time per example"),
    # paths.py
    Slip(
        "core/paths.py",
        "Scales(t, 1 - t, t, -torch.ones_like(t), torch.ones_like(t))",
        "Scales(t, t, 1 - t, torch.ones_like(t), -torch.ones_like(t))",
        "the linear path's time flipped",
    ),
    Slip("core/paths.py", "else -alpha * alpha_dot / sigma", "else alpha * alpha_dot / sigma", "cosine: σ̇'s sign"),
    Slip("core/paths.py", "torch.log1p(-beta).cumsum(0)", "torch.log1p(-beta[:-1]).cumsum(0)", "ᾱ without the last β"),
    Slip("core/paths.py", "sigma.to(noise) * noise", "sigma.to(noise) * 0 + noise", "the prior not scaled by σ(1)"),
    Slip("core/paths.py", "(1 - 2 * time) / (2 * root)", "(1 - 2 * time) / root", "bridge: γ̇ without its ½"),
    Slip("core/paths.py", "s2 * (1 - 2 * t) / 2", "s2 * (1 - t) / 2", "bridge: σ̇"),
    Slip("core/paths.py", "h = self.spread**2 / 2", "h = self.spread / 2", "bridge: σ/α inverted with s for s²"),
    # denoiser.py
    Slip("losses/denoise.py", "(own * (c.sigma / (c.alpha * b - c.sigma * a)) ** 2)", "own", "the weight of x₀'s error put on the target's"),
    Slip("core/denoiser.py", "self.row(last)[0] == 0 and ", "", "every target is asked elsewhere where α = 0"),
    Slip("core/denoiser.py", "not self.predicts_velocity", "False", "any target between two sets"),
    Slip("core/denoiser.py", "c.t.where(early, self.t_max)", "c.t", "t_max forgotten for a time per sample"),
    Slip("core/denoiser.py", "c.alpha <= self.alpha_min else c", "c.alpha == 0 else c", "alpha_min forgotten"),
    Slip("core/denoiser.py", "if c.alpha else estimate", "if not c.alpha else estimate", "ε̂ where the network was asked"),
    Slip("losses/denoise.py", ".flatten(1).mean(1)", ".flatten(1).sum(1)", "the loss not divided by the dimension"),
    Slip("losses/denoise.py", "clamp(max=gamma)", "clamp(min=gamma)", "min-SNR made a max"),
    # times.py
    Slip("core/times.py", "device)[rows] + w\n", "device)[rows] + w / n\n", "strata not filled"),
    Slip("core/times.py", "lambda r: r**rho", "lambda r: r ** (1 / rho)", "Karras's exponent inverted"),
    Slip("core/times.py", "(table - passed).round()", "(table - passed).floor()", "trailing times rounded down"),
    Slip("core/times.py", "shift * v / (1 + (shift - 1) * v)\n", "v / (shift - (shift - 1) * v)\n", "shift inverted"),
    Slip("core/times.py", "return 1 - scale * (1 - draw)", "return scale * (1 - draw)", "beta law in π0's own clock"),
    Slip("core/times.py", "share * path.along([1.0])[0].tau", "share", "flow_power beyond the path's end"),
    # couplings.py
    Slip("core/couplings.py", "cost - epsilon * cost.mean() * gumbel", "cost + epsilon * cost.mean() * gumbel", "Gumbel noise of the wrong sign"),
    Slip("core/couplings.py", "rest[columns[columns < n]] = False", "pass", "noise paired twice in partial transport"),
    Slip("core/couplings.py", "padded[n:, n:] = 2 * cost.max() + 1", "pass", "dummies paired with dummies"),
    Slip("core/guidance.py", "return checkpoint(self.denoiser, x_t, t, use_reentrant=False, preserve_rng_state=False, **cond)",
         "return self.denoiser(x_t, t, **cond)", "a gradient that keeps all activations", ("tests/samplers/test_samplers.py",)),
    Slip("samplers/__init__.py", "times[times < at]", "times[1:]", "a middle start walks the whole grid", ("tests/samplers/test_samplers.py",)),
    Slip("training/starting.py", "c.alpha * z + c.sigma * self.noise(draws)", "z + c.sigma * self.noise(draws)", "data noised without α",
         ("tests/training/test_starting.py",)),
    Slip("training/asked.py", "(self.known, self.start))", "(self.known, self.known))", "a start that isn't cut into pieces",
         ("tests/training/test_starting.py",)),
    Slip("networks/unet.py", "return torch.cat([image * mask, mask], 1)", "return torch.cat([0 * image, mask], 1)", "an image given and not seen",
         ("tests/kinds/images/test_super_resolution.py",)),
    Slip("networks/clock.py", "(~v.isnan()).to(v)", "v.isnan().to(v)", "known numbers marked unknown", ("tests/networks/test_clock.py",)),
    Slip("data/attributes.py", "values[[rows[images.name(i)] for i in range(images.n)]]", "values[: images.n]", "another image's numbers",
         ("tests/data/test_attributes.py",)),
    Slip("kinds/images/conditions.py", "given.masked_fill(alone, torch.nan)", "given", "numbers never left out alone",
         ("tests/kinds/images/test_conditions.py",)),
    Slip("core/couplings.py", "from_numpy(columns)", "from_numpy(columns.argsort())", "the inverse permutation"),
    Slip("losses/stable.py", "mul_(-0.5 /", "mul_(-1.0 /", "the Gaussian's ½"),
    Slip("losses/stable.py", "allowed[b, b]", "allowed[:len(x) * size, :len(x) * size]", "the first rows' labels for the last's"),
    Slip("losses/stable.py", "noise + (x0 - mean) / ratio", "noise - (x0 - mean) / ratio", "ε̄'s sign"),
    # oracle.py
    Slip("exact/oracle.py", "self.weights.to(x).log() + log_normal", "log_normal", "responsibilities without the weights"),
    Slip("exact/oracle.py", "None]) ** 2 + c.sigma**2", "None]) ** 2 + c.sigma", "a mode's variance"),
    Slip("exact/start.py", "(1 - share) * S + share * target", "share * S + (1 - share) * target", "shrunk the wrong way"),
    Slip("exact/start.py", "(label < self.classes)[:", "(label <= self.classes)[:", "a null label that leaves no part in"),
    Slip("core/denoiser.py", ".mix(*self.row(c))", ".mix(*self.row(c)[::-1])", "a start whose (a, b) are swapped",
         ("tests/exact/test_start.py",)),
    Slip("training/stopping.py", "loss < min(self.losses)", "loss > min(self.losses)", "the worst weights kept"),
    Slip("training/stopping.py", ">= self.best + PATIENCE", ">= PATIENCE", "patience from step 0 on"),
    Slip("kinds/runs.py", '"lr_steps": found.recipe.steps', '"lr_steps": 0', "another learning rate where all rows are learned",
         ("tests/training/test_stopping.py",)),
    Slip("exact/oracle.py", "(after / before).sqrt()", "(after / before)", "the flow scales by the variance"),
    # guidance.py
    Slip("core/guidance.py", "torch.lerp(both[b:], both[:b], w)", "torch.lerp(both[b:], both[:b], 1 + w)", "the 1 + w convention"),
    Slip("codecs/category.py", "(1 - self.shares) / self._scales()", "(1 + self.shares) / self._scales()", "levels beyond the ends", ("tests/codecs/test_mixed.py",)),
    Slip("training/trained.py", "denoiser = Bounded(denoiser, self.codec.ends())", "pass", "codes beyond all rows", ("tests/training/test_trained.py",)),
    Slip("core/guidance.py", "(time > low) & (time <= high)", "(time <= low) | (time > high)", "the interval inverted"),
    Slip("core/guidance.py", "if low < time <= high", "if low <= time < high", "the interval's ends"),
    Slip("core/guidance.py", "(both[b:], both[:b], w)", "(both[:b], both[b:], w)", "the label shunned"),
    Slip("core/guidance.py", "torch.lerp(weak.noise, strong.noise, w)", "strong.noise", "autoguidance of x̂₀ alone"),
    Slip("core/guidance.py", "c.alpha / c.sigma * (estimate.x0 - x0)", "(estimate.x0 - x0)", "a bound's noise left behind"),
    # posterior.py
    Slip("inverse/posterior.py", "scale = there.sigma**2 / there.alpha", "scale = there.sigma**2", "V without its 1/α"),
    Slip("inverse/posterior.py", "self.measurement.std**2 * residual", "self.measurement.std * residual", "1/s for 1/s²"),
    Slip("inverse/posterior.py", "noise - c.alpha / sigma", "noise + c.alpha / sigma", "ε̂ moved the wrong way"),
    Slip("inverse/posterior.py", "(m.transpose(u, x)) + s2 * u", "(m.transpose(u, x))", "PiGDM forgets the noise of y"),
    # likelihood.py and encoding.py
    Slip("exact/likelihood.py", "at_end(x1)[:, None] + expansion", "at_end(x1)[:, None] - expansion", "divergence's sign"),
    Slip("exact/likelihood.py", "at_end(x1)[:, None] + expansion", "expansion", "the prior left out"),
    Slip(
        "exact/likelihood.py",
        "map(probe, range(probes))",
        "map(probe, [0] * probes)",
        "the same probe again and again",
        ("tests/exact/test_likelihood.py::test_the_probes_spread_is_the_standard_error",),
    ),
    Slip(
        "exact/likelihood.py",
        "prior, graph, cond).mean(1)",
        "prior, graph, cond)[:, 0]",
        "probes not averaged",
        ("tests/exact/test_likelihood.py::test_a_density_by_probes",),
    ),
    Slip("exact/likelihood.py", "(2 * std**2)", "(2 * std)", "the prior's variance"),
    Slip("exact/encoding.py", "end.ratio / 2", "end.ratio", "the first step's middle at its end"),
    Slip("exact/encoding.py", "for part in (1 - share, share)", "for part in (share, 1 - share)", "interpolates backwards"),
    # randomness.py
    Slip("core/randomness.py", "self.ids.to(x.device, torch.int64) +", "0 * self.ids.to(x.device) +", "the id ignored"),
    Slip("core/randomness.py", 'key(self.seed, "draws", step)', 'key(self.seed, "draws")', "the step ignored"),
    Slip("core/randomness.py", '"normal", draw.drawn, k,', '"normal", draw.drawn, k - first,', "every rank's first block the same"),
    Slip("core/randomness.py", '"normal", draw.drawn, k,', '"normal", 1, k,', "noise and z of a large batch the same"),
    Slip("core/randomness.py", "[*part.encode(), 256]", "[*part.encode()]", "a text's end not marked"),
    # training
    Slip("training/ema.py", "return min(", "return max(", "the average's warm-up never used"),
    Slip("training/trainer.py", "1 - ema_decay(", "ema_decay(", "the average's decay swapped with 1 - decay"),
    Slip("training/replicated.py", "mul_(self.clip / norm)", "mul_(self.clip)", "clipping multiplies by the bound"),
    Slip("training/trainer.py", '.sum() / len(batch["t"])', ".sum()", "the loss summed"),
    Slip("training/examples.py", "masked_fill(hidden, self.classes)", "masked_fill(~hidden, self.classes)", "shown labels hidden"),
    Slip("training/examples.py", '(seed, "order", epoch)', '(seed, "order", 0)', "every epoch in the same order"),
    Slip("training/schedule.py", "(step - warmup) / max", "step / max", "the cosine counted from the warm-up's start"),
    Slip("training/flat.py", "lr * unbias / (1 - beta1**self.updates)", "lr * unbias", "Adam's mean not unbiased"),
    Slip("training/flat.py", "1 - lr * self.decay", "1 - self.decay", "weight decay without the learning rate"),
    Slip("training/flat.py", "self.decayed = self.vector[:matrices]", "self.decayed = self.vector", "biases decay too"),
    # metrics and data
    # metrics/tables/
    Slip("metrics/tables/rows.py", "parts.append(rows.level(k) / np.sqrt(2))", "parts.append(rows.level(k))", "two levels √2 apart"),
    Slip("metrics/tables/margins.py", ".sum() + gap) / 2", ".sum()) / 2", "total variation without missing cells"),
    Slip("metrics/tables/trees.py", "found.score(features[len(known) :], asked[:, target])", "found.score(features[: len(known)], y)", "trees tested on what they learned from"),
    Slip("metrics/tables/bars.py", "squares / (counts + PRIOR)", "squares / counts", "a shrunk covariance of rows that aren't counted"),
    Slip("metrics/tables/nats.py", "copula - alone", "copula", "the copula's log-density, not over independent columns"),
    Slip("metrics/tables/judge.py", "COPY = 1e-6", "COPY = 0.0", "no sample is ever a copy"),
    Slip("metrics/tables/judge.py", "units(held), train).distance", "units(samples), train).distance", "samples' copies beside their own"),
    Slip("metrics/memorisation.py", "return _over(float(samples.mean()), float(held.mean()))", "return 1.0", "nothing said where most rows repeat", ("tests/metrics/test_memorisation.py",)),
    Slip("kinds/points/nearness.py", ".fill_diagonal_(torch.inf)", "", "every row is its own nearest"),
    Slip("training/stopping.py", "if not self.copies:", "if True:", "weights that copy are kept"),
    Slip("kinds/points/data.py", "test=0, gaps=points.missing)", "test=0)", "a part forgets the whole's gaps"),
    Slip("metrics/mmd.py", "strip.diagonal().zero_()", "strip.diagonal()", "every point meets itself"),
    Slip("metrics/mmd.py", "counts = len(u) - 1, len(v) - 1,", "counts = len(u), len(v),", "MMD biased by its counts"),
    Slip(
        "metrics/wasserstein.py",
        "float(np.sqrt(_cost(np.sort(θ @ a.T), np.sort(θ @ b.T)).mean()))",
        "float(_cost(np.sort(θ @ a.T), np.sort(θ @ b.T)).mean())",
        "sliced W₂ without its root",
    ),
    Slip("metrics/wasserstein.py", "(np.arange(n) + 0.5) / n", "(np.arange(n) + 1) / (n + 1)", "normal quantiles"),
    Slip("metrics/floor.py", "bdtrc(count - 1, n, truth)", "bdtrc(count, n, truth)", "p of more than was counted"),
    Slip("metrics/floor.py", "v * (taken + (1 - taken) / len(floors))", "0 * v", "the floor's own error left out"),
    Slip("metrics/floor.py", "max(0.0, own - 2 * v)", "own", "an interval's width at the floor taken for its error"),
    Slip("metrics/measurement.py", "return self.p >= LEVEL", "return self.low <= self.floor_high", "the floor's range"),
    Slip("metrics/intervals.py", "shift = shift + rate *", "shift = shift + 0 * rate *", "the second term of MMD²"),
    Slip("exact/certify.py", "2.2 * sum(floors)", "3.5 * sum(floors)", "sliced W2 certified too loosely"),
    Slip("metrics/modes.py", "distance > sigmas * std", "distance > sigmas", "outliers not in units of σ"),
    Slip("codecs/columns.py", "return z * std + mean", "return (z + mean) * std", "standardising not undone"),
    Slip("metrics/kid.py", "(xx - _self(a)) / (len(a) - 1)", "xx / len(a)", "KID with every image beside itself"),
    Slip("metrics/frechet.py", "apart - 2 * np", "apart - np", "half of the Fréchet distance's cross term"),
    Slip("kinds/images/data.py", "z.flip(3)", "z.flip(2)", "images mirrored upside down",
         ("tests/kinds/images/test_images.py",)),
    Slip("networks/unet.py", "self.norm2(h, scale, shift)", "self.norm2(h, shift, scale)", "scale for shift"),
    Slip("networks/unet.py", "skips.pop()], 1)", "skips.pop(0)], 1)", "skips from the wrong end"),
    Slip("codecs/columns.py", "(z + 1) * 127.5", "z * 127.5", "pixels not undone"),
    Slip("networks/patches.py", "scale[:, None] * basis", "basis", "a latent's scale not undone"),
    Slip("codecs/patches.py", " * sign.to(z)[:, None, None]", "", "a latent mirrored without its signs"),
    Slip("networks/patches.py", "cut(x, size) - mean", "cut(x, size) - cut(x, size).mean((0, 1))", "a batch's mean"),
    Slip("networks/autoencoder.py", "return linear + self.decoder(", "return self.decoder(", "a decoder from nothing"),
    Slip("networks/autoencoder.py", "zeroed(Conv3x3(levels[-1], keep))", "Conv3x3(levels[-1], keep)", "f isn't 0 at first"),
    Slip("codecs/autoencoder.py", "(variance**whiten)", "(variance**0.5)", "whiten is ignored"),
    Slip("codecs/autoencoder.py", " * self._of(self.spread, z)", "", "a learned latent's scale not undone"),
    Slip("losses/reconstruct.py", "z + noise_std * ", "z + ", "noise of size 1 in the latent"),
    Slip("losses/sharpen.py", "x0, made.detach(), smooth", "x0, made, smooth", "sharpen: the decoder helps the critic"),
    Slip("losses/sharpen.py", "judges.step < after", "judges.step > after", "sharpen: the critic's beginning at the end"),
    Slip("losses/__init__.py", 'frozen=("encoder",)', "frozen=()", "sharpen: the encoder moves", ("tests/losses/test_sharpen.py",)),
    Slip("training/build.py", "denoiser.network.state_dict().items()}", "denoiser.network.named_parameters()}",
         "an autoencoder that begins with another's networks and its own components", ("tests/training/test_build.py",)),
    Slip("codecs/autoencoder.py", "if encoder_hash(made) != encoder_hash(own)", "if False", "a decoder of another encoder"),
    Slip("losses/reconstruct.py", "absolute * error.abs()", "error.abs()", "the absolute error has its weight"),
    Slip("codecs/codec.py", '.lstrip("0123456789.")', "", "a flow tied to the decoder of a chain",
         ("tests/codecs/test_codec.py",)),
    Slip("training/trained.py", "storage.CODEC: codec} if codec", "storage.CODEC: codec} if not codec",
         "the codec isn't copied into the run", ("tests/kinds/images/test_latents.py",)),
    Slip("training/trained.py", "bound, codec=self.bounding(bound))", "bound)", "a bound on latents",
         ("tests/kinds/images/test_latents.py",)),
    Slip("training/storage.py", "encoder_hash(found) != encoder", "False", "another encoder than in training",
         ("tests/kinds/images/test_latents.py",)),
    Slip("kinds/images/latents.py", "z[:, 1], z[:, 0]", "z[:, 0], z[:, 0]", "no latent of a mirrored image",
         ("tests/kinds/images/test_latents.py",)),
    Slip("inverse/posterior.py", "measurement.y - seen, ", "measurement.y, ", "the decoder's offset is measured too",
         ("tests/inverse/test_posterior.py",)),
    Slip("codecs/columns.py", "correction=0", "correction=1", "the unbiased standard deviation"),
    # cli: options that are asked for and not heeded
    Slip("cli/drawing.py", "mine, seed=how.seed, ", "mine, ", "--seed ignored", DRAWN),
    Slip("cli/drawing.py", '"guidance": self.guidance', '"guidance": 1.0', "--guidance ignored", DRAWN),
    Slip("cli/drawing.py", '"interval": self.interval', '"interval": (0.0, 1.0)', "--interval ignored", DRAWN),
    Slip("cli/drawing.py", "self.grid or None, ", "None, ", "--grid ignored", DRAWN),
    Slip("cli/drawing.py", "None if self.bound == -1 else self.bound", "None", "--bound ignored", DRAWN),
    Slip("cli/drawing.py", "suited(how.precision, ", 'suited("no", ', "--precision ignored", DRAWN),
    Slip("cli/arguments.py", "threads(self.threads, ", "threads(0, ", "--threads ignored"),
    Slip("cli/train.py", 'if one.name != "quiet"', 'if one.name not in ("quiet", "keep")', "--keep ignored"),
    Slip("cli/train.py", 'if one.name != "quiet"', 'if one.name not in ("quiet", "accumulate")', "--accumulate ignored"),
    Slip("cli/rollout.py", "seed=args.seed, sampler", "sampler", "--seed of the simulator alone"),
    Slip("cli/rollout.py", "steps=number_or_auto(args.steps), **how", "**how", "--steps ignored"),
    Slip("cli/rollout.py", "(one, args.every, ", "(one, 1, ", "--every makes a slow film, not a short one"),
    Slip("cli/likelihood.py", "len(own), args.seed, start)", "len(own), 0, start)", "probes without the seed"),
    Slip("cli/likelihood.py", "reading()), args.n, args.seed)", "reading()), args.n, 0)", "points without the seed"),
    Slip(
        "cli/likelihood.py",
        "_log_shares(trained)).logsumexp(0) - volume(trained.codec, trained.shape)",
        "_log_shares(trained)).logsumexp(0) + volume(trained.codec, trained.shape)",
        "the map's volume with the wrong sign",
    ),
    Slip("cli/likelihood.py", "reshape(MAP, MAP).numpy()", "reshape(MAP, MAP).T.numpy()", "the map's axes swapped"),
    Slip("cli/tune.py", "args.n, seed=args.seed))", "args.n))", "--seed ignored",
         ("tests/cli/test_tune.py::test_every_option_reaches_the_search",)),
    # what is measured, and by whom
    Slip("cli/evaluate.py", "trained.in_proportion(drawing.n)", "trained.labels(0, drawing.n)", "one class alone"),
    Slip("cli/evaluate.py", "trained.in_proportion(drawing.n)", "trained.in_turn(drawing.n)", "rare classes as often"),
    Slip("kinds/studies.py", "trained.in_proportion(n)", "trained.in_turn(n)", "rare classes as often"),
    Slip("kinds/studies.py", "if labels == its", "if labels", "floors of other labels"),
    Slip("cli/evaluate.py", "first=k * drawing.n", "first=0", "eight times the same chunk"),
    Slip("metrics/wasserstein.py", "[len(r) * _cost(", "[len(x) / len(sets) * _cost(", "modes weigh equally"),
    Slip("metrics/wasserstein.py", "normal) + _cost(np.sort(projected), normal).mean()", "normal)", "modes' weights"),
    Slip("metrics/extractors.py", "JUDGE_SEED = 0, 1", "JUDGE_SEED = 0, 0", "judged by who made the features",
         ("tests/metrics/test_images.py",)),
    Slip("metrics/image_judge.py", "train_classifier(real.train, known, ", "train_classifier(real.held, other, ",
         "a judge that has seen what it judges", ("tests/metrics/test_images.py",)),
    Slip("metrics/image_judge.py", "held_at[other],", "held_at[half],", "a floor's copies judged by themselves",
         ("tests/metrics/test_images.py",)),
    Slip("metrics/image_judge.py", "values[order[torch.searchsorted(ids[order], wanted)]]", "values[wanted.argsort().argsort()]",
         "samples of several processes in another order"),
    Slip("metrics/image_judge.py", "chosen.tensor_split(count)[rank]", "chosen", "every process judges all real images"),
    Slip("metrics/frechet.py", "self.mean + other.n / n * apart", "self.mean + apart / 2", "blocks' means merged as if equal in number"),
    Slip("metrics/frechet.py", "self.scatter + other.scatter + between", "self.scatter + other.scatter", "blocks merged without what is between them"),
    Slip("training/folder.py", 'stream.restore(known.get("stream"))', "stream.restore({})", "a stream's place forgotten on resume",
         ("tests/kinds/images/test_streams.py",)),
    Slip("data/shards.py", "        raise StorageError(\n            f\"{file} can't be read", "        return None\n        raise StorageError(\n            f\"{file} can't be read",
         "a shard that can't be read now is made again"),
    Slip("data/stream.py", "if self._row > self.held:", "if self._row >= self.held:", "a stream's last held-out image is learned"),
    Slip("cli/drawing.py", "_part(self.n, trained.chunk, self.rank, self.count)", "_part(self.n, trained.chunk, 0, self.count)",
         "every process draws the same samples", ("tests/cli/test_drawing.py",)),
    Slip("metrics/reference.py", "order[half:]]}", "order[:half]]}", "a floor's copies judged by themselves"),
    Slip("exact/tune.py", "part: slice = JUDGE)", "part: slice = CHOOSE)", "judged by who chose",
         ("tests/exact/test_tune.py::test_what_is_reported_is_of_the_starts_that_judge",)),
    # what the network is told
    Slip("training/trained.py", '= {} if labels is None else {"label": labels.to(device)}', "= {}", "asked without the label"),
    Slip("samplers/walks.py", '{"to": to}), **self.cond)', '{"to": to}))', "an evaluation without the label", TOLD),
    Slip("samplers/ode.py", "stage.c, **cond)", "stage.c)", "later stages without the label", TOLD),
    Slip("exact/encoding.py", "x0, middle, **cond)", "x0, middle)", "the first step without the label"),
    Slip("exact/likelihood.py", "grid[0].t), **cond)", "grid[0].t))", "the first step without the label"),
    Slip("kinds/images/pages.py", 'cond = {} if labels is None else {"label": labels}\n    with', "cond = {}\n    with",
         "x̂₀ without the label"),
    Slip("kinds/images/pages.py", '{} if labels is None else {"label": labels[i].expand(n)}', "{}",
         "images between two without the label"),
    Slip("robots/observing.py", "*[history[0]] * (steps - len(history)), *history",
         "*history, *[history[-1]] * (steps - len(history))", "a history filled at its end"),
    Slip("robots/observing.py", "[history[0]] * (", "[history[-1]] * (", "a history filled with its latest step"),
    Slip("robots/policy.py", "[-self.n_obs_steps :]", "[: self.n_obs_steps]", "what is seen now is cut off"),
    Slip("data/episodes.py", "past.maximum(start)", "past.clamp(min=0)", "the past of another episode"),
    Slip("data/episodes.py", "[column.sin(), column.cos()]", "[column.cos(), column.sin()]", "sine named cosine"),
    Slip("robots/pusht.py", 'np.clip(checked("action", action, 2), self.low, self.high)',
         'checked("action", action, 2)', "actions not clipped"),
    Slip("robots/pusht.py", 'np.clip(checked("action", action, 2), self.low, self.high)',
         'np.minimum(checked("action", action, 2), self.high)', "actions clipped at one end"),
    Slip("data/text.py", "names = [layout.names[k] for k in kept]",
         "names = [*layout.names[: len(kept)]]", "names shifted where the label isn't last"),
    Slip("data/text.py", "kept = [k for k in kept if k != label]", "kept = kept[: len(kept) - (label is not None)]",
         "the last column left out"),
    Slip("data/forms.py", "sum(text in plain for text in cells) >=", "sum(text in plain for text in cells) >", "half a column of numbers is texts"),
    Slip("data/forms.py", "len(ends) == 1", "ends", "two units in one column"),
    Slip("data/forms.py", "_STYLES[comma]", "_STYLES[0]", "a thousand where commas are decimal"),
    # codecs of tables
    Slip("codecs/ranks.py", "low + (EDGE + (1 - 2 * EDGE) * v) * width", "low + 0.5 * width", "ties not spread"),
    Slip("codecs/ranks.py", "middle = (low + high) / 2", "middle = low", "ranks from 0, not from a half"),
    Slip("codecs/ranks.py", "end + share * (after - end), end)", "end, end)", "no ranks between values"),
    Slip("codecs/ranks.py", "(counts > 1) & (counts > n / 1000)", "counts > n", "a mass among others spread out"),
    Slip("codecs/category.py", "self._vectors(x.cpu()) - self.shares", "self._vectors(x.cpu())", "levels not centred"),
    Slip("codecs/category.py", "(1 - part.square().sum())", "(1 - part.sum())", "groups of levels not scaled"),
    Slip("codecs/missing.py", "torch.where(gap[..., None].to(own.device), noise, own)", "own",
         "no fresh noise for an empty cell"),
    Slip("codecs/mixed.py", "order.argsort()", "order", "columns in another order"),
    Slip("kinds/points/data.py", "uniform(draw, *cells.shape[:-1])",
         "torch.full(cells.shape[:-1], 0.5)", "ties drawn once"),
    # columns given to a run
    Slip("core/guidance.py", "estimate.x0.where(unknown, z), estimate.noise", "estimate.x0, estimate.noise",
         "known columns not reached"),
    Slip("core/guidance.py", "torch.full_like(given, torch.nan) if label is None else given", "given * torch.nan",
         "guidance: away from what isn't given the columns"),
    Slip("networks/masked.py", "x.masked_fill(~unknown, 0)", "x", "what is known seen with noise, too"),
    Slip("networks/masked.py", "(~unknown).to(x)]", "torch.zeros_like(x)]", "known to be 0 taken for unknown"),
    Slip("data/partly.py", "known[:, column])", "known.roll(1, 0)[:, column])", "counted by another row's mask"),
    Slip("data/partly.py", '"mask": ~known / unknown', '"mask": 1 / unknown', "loss on what is known, too"),
    Slip("data/partly.py", "1 - count / d", "torch.ones(n)", "rows with much known hardly count"),
    Slip("codecs/category.py", "widths.cumsum(0) - 1", "widths.cumsum(0) - widths", "the first level for a missing cell"),
    Slip("training/completing.py", "DRAW * torch.arange(draws)", "torch.arange(draws)", "draws shared by rows"),
    Slip("training/completing.py", "x.where(asked.known.isnan().to(x.device), asked.known.to(x))", "x",
         "given cells as they are decoded"),
    Slip("training/completing.py", "known.clamp(*self._ends())", "known", "beyond the table: the end of the world"),
    Slip("training/completing.py", "torch.special.ndtr(v))", "0.5)", "every value in the middle of its interval"),
    Slip("data/text.py", "part.append(cell)", "part.append(cell.strip())", "cells not as written",
         ("tests/cli/test_sample.py",)),
    # randomness that several share, and what a network is left in
    Slip("training/trainer.py", '"dropout", self.step, ', '"dropout", 0, ', "dropout: every step's mask the same"),
    Slip("training/trainer.py", "self.step, self.accelerator.process_index)", "self.step, 0)", "every rank's the same"),
    Slip("training/examples.py", "slice(rank * self.share, (rank + 1) * self.share)", "slice(0, self.share)", "every rank takes the same share"),
    Slip("training/examples.py", "own.start - rows.start : own.stop", "0 : own.stop", "a rank's share begins with others' rows"),
    Slip("training/replicated.py", 'reduce(self.flat.gradient, "mean")', 'reduce(self.flat.gradient, "sum")', "ranks' gradients added"),
    Slip("training/sharded.py", "average.lerp_(own, share)", "average.lerp_(own, 0)", "a sharded average that stays where it began"),
    Slip("training/sharded.py", "for name, part in self.ema.items()}", "for name, part in self.rows.items()}", "shared weights saved as their average"),
    Slip("training/sharded.py", 'reduce(square, "sum")', 'reduce(square, "mean")', "a gradient's norm that shrinks with the processes"),
    Slip("training/sharded.py", '"exp_avg": self.mean, ', '"exp_avg": self.square, ', "resuming forgets the optimiser's mean"),
    Slip("training/sharded.py", "count.fill_(updates)", "count.fill_(0)", "resuming forgets how many steps the optimiser took"),
    Slip("training/pieces.py", "list(item.tensor_data.chunk.offsets)", "[0] * len(item.tensor_data.chunk.offsets)", "every piece at its tensor's beginning", ("tests/training/test_sharded.py",)),
    Slip("training/trainer.py", "self.engine.forget(len(values) - good)", "pass", "steps that were none are counted"),
    Slip("training/examples.py", "hidden = uniform(draw, len(label))", "hidden = uniform(draw, len(label)) * 0", "all labels hidden"),
    Slip("kinds/images/data.py", "uniform(draw, len(z))", "uniform(draw, 1)", "a whole batch mirrored",
         ("tests/kinds/images/test_images.py",)),
    Slip("networks/observation.py", "(b, 2), device=images.device).tolist()",
         "(1, 2), device=images.device).tolist() * b", "a whole batch shifted alike"),
    Slip("training/folder.py", "            start.denoiser.train()", "            start.denoiser.eval()",
         "training goes on without dropout after a snapshot", LEFT),
    Slip("training/trained.py", "Like = self.denoiser.eval()", "Like = self.denoiser", "dropout in sampling", LEFT),
    Slip("networks/observation.py", "network.eval().parameters()", "network.parameters()", "dropout in acting",
         ("tests/robots/test_chunks.py",)),
    # figures
    Slip("kinds/points/study.py", "to_data(speed) - zero", "to_data(speed)", "velocities moved by the data's mean",
         ("tests/kinds/points/test_points.py",)),
    Slip("plots/animation.py", "(y1 - x[:, 1])", "(x[:, 1] - y0)", "upside down"),
    Slip("plots/pusht.py", "ylim=(PUSHT_SIDE, 0)", "ylim=(0, PUSHT_SIDE)", "Push-T upside down"),
    Slip("plots/strips.py", "ratio = (alpha / sigma) ** 2", "ratio = alpha / sigma", "α/σ for α²/σ²"),
    Slip("plots/density.py", 'origin="lower"', 'origin="upper"', "upside down"),
    Slip("plots/density.py", "extent=(*frame[0], *frame[1])", "extent=(*frame[1], *frame[0])", "the axes swapped"),
    Slip("plots/density.py", 'indexing="xy"', 'indexing="ij"', "rows for columns"),
    Slip("plots/dataset.py", 'origin="lower"', 'origin="upper"', "an exact density upside down"),
    Slip("plots/columns.py", "(panel.x)[:SHOWN, [j, i]]", "(panel.x)[:SHOWN, [i, j]]", "a pair's axes swapped"),
    Slip("plots/columns.py", "ax.set_ylabel(_name(names, i)", "ax.set_ylabel(_name(names, j)", "a row misnamed"),
    Slip("plots/forward.py", "(_T, sigma**2,", "(_T, sigma,", "σ drawn as the variance"),
    Slip("plots/forward.py", "mean - k * sigma, mean + k * sigma", "mean - k * sigma**2, mean + k * sigma**2", "σ²"),
    Slip("plots/forward.py", "+ sigma[i] * np.stack", "+ sigma[i] ** 2 * np.stack", "circles of radius σ²"),
    Slip("plots/forward.py", "snr = 2 * np.log", "snr = np.log", "log α/σ for log α²/σ²"),
    Slip("plots/forward.py", "(_T, alpha**2,", "(_T, alpha,", "√ᾱ drawn as ᾱ"),
    Slip("plots/forward.py", "/ std + s * noise)", "/ std + s**2 * noise)", "σ² ε for σ ε"),
    # a run's own solver
    Slip("exact/fit.py", "slice(0, None, 2), self.weight[0::2]", "slice(None), self.weight",
         "the starts that choose are fitted too"),
    Slip("exact/fit.py", "_score(self._squares(end, fine)[1::2], self.weight[1::2])",
         "_score(self._squares(end, fine)[0::2], self.weight[0::2])", "chosen on what was fitted"),
    Slip("exact/fit.py", "1 - tau - keep * (1 - self.first)", "1 - tau", "a path that ends in data"),
    Slip("exact/fit.py", "descending=True", "descending=False", "the starts far from every border"),
    Slip("exact/fit.py", "len(far) / plan.others)", "1.0)", "a start stands for itself alone"),
    Slip("exact/fit.py", "share / (error + typical)", "share * (error + typical)", "reweighed by the error"),
    Slip("training/solver.py", "if one.weights == own and one.evaluations", "if one.evaluations", "the cache's, whosever it is",
         ("tests/exact/test_fit.py",)),
    Slip("training/solver.py", "trained.steered(**how), start", "trained.steered(), start", "fitted without guidance or bound",
         ("tests/exact/test_fit.py",)),
    Slip("training/solver.py", "(own, count, sorted(how.items()))", "(own, count)", "kept for any guidance",
         ("tests/exact/test_fit.py",)),
    Slip("training/trained.py", 'if one.weights in ("", own)))', "))", "another's solver is used", ("tests/exact/test_fit.py",)),
    Slip("training/choosing.py", "and not facts(self.recipe.sampler).noise", "and True", "an ancestral run samples an ODE",
         ("tests/exact/test_fit.py",)),
    Slip("training/choosing.py", "(how != _AS_TRAINED and", "(False and", "a stored solver under guidance",
         ("tests/exact/test_fit.py",)),
    Slip("training/folder.py", '("metrics.jsonl", TUNED)', '("metrics.jsonl",)', "the old run's solvers stay",
         ("tests/exact/test_fit.py",)),
    # what a run names
    Slip("training/trained.py", "what in outside and what not in self.named", "False", "a stranger's data is opened unasked",
         ("tests/interop/test_hub.py",)),
    Slip("training/trained.py", "replace(self, recipe=self.recipe.shared(), made=made, card_parts=lambda: parts)", "self", "an export says where files lie",
         ("tests/interop/test_hub.py",)),
    Slip("recipes/recipe.py", "if hosted and not os.path.exists(local.partition(\":\")[0])", "if hosted", "a folder here is the hub's",
         ("tests/recipes/test_recipes.py",)),
    # estimates that lead to another time
    Slip("losses/flow_map.py", "t.size + (to.tau - t.tau) * u)", "t.size - (to.tau - t.tau) * u)", "a jump the wrong way"),
    Slip("losses/flow_map.py", ".mix(-1.0, 1.0)", ".mix(1.0, -1.0)", "the mean slope's sign"),
    Slip("losses/flow_map.py", "square.detach() + floor", "square + floor", "a gradient through the robust weight"),
    Slip("losses/flow_map.py", "leap.x_t / leap.t.size) / (leap", "leap.x_t) / (leap", "a trajectory's start not in the flow clock"),
    Slip("losses/flow_map.py", "(part.t.tau + part.to.tau) / 2", "(part.t.tau + part.to.tau) / 3", "shortcut: not halfway"),
    Slip("losses/flow_map.py", "first), half, part.to", "first), part.t, part.to", "shortcut: the second half from the start's time"),
    Slip("losses/flow_map.py", "v - (part.t.tau - part.to.tau) * rate", "v + (part.t.tau - part.to.tau) * rate", "mean_flow: the derivative's sign"),
    Slip("losses/flow_map.py", "arrive(part.x_t, part.t, c, v), c,", "part.x_t, c,", "mean_flow: a partial derivative for the total one"),
    Slip("losses/flow_map.py", "u + (leap.to.tau - leap.t.tau) * rate - v", "u - (leap.to.tau - leap.t.tau) * rate - v", "lagrangian: the derivative's sign"),
    Slip("losses/flow_map.py", "teacher or denoiser, end, leap.to, None", "teacher or denoiser, leap.x_t, leap.t, None", "lagrangian: the velocity of the start"),
    Slip("losses/flow_map.py", "None, part.cond) if own else", "None, part.cond) if average else", "mean_flow: the average where it isn't asked for"),
    Slip("losses/flow_map.py", "self.t.tau != self.to.tau", "self.t.tau > 0.5", "late examples alone lead to another time"),
    Slip("losses/flow_map.py", "(high.tau - low.tau)", "STEP", "half a difference"),
    Slip("losses/matching.py", "(fake - real) / size", "(real - fake) / size", "matching: away from the teacher's density"),
    Slip("losses/matching.py", "t.alpha * own + t.sigma * fresh.noise", "own", "matching: scores at samples that aren't noised"),
    Slip("losses/matching.py", "t, own = path.at(path.time_at(tau), x), x.detach()", "t, own = path.at(path.time_at(tau), x), x", "matching: the judges' losses move the student"),
    Slip("losses/matching.py", "weight / 2 * (x", "weight * (x", "matching: twice the gradient"),
    Slip("losses/matching.py", "judges.step % updates == 0", "judges.step % updates > 0", "matching: the student's turns and the judges' swapped"),
    Slip("losses/critic.py", "softplus(score(made) - own)", "softplus(own - score(made))", "matching: a critic that prefers the student's"),
    Slip("losses/critic.py", "critic.requires_grad_(False)", "pass", "the critic helps what it judges"),
    Slip("losses/critic.py", ".square() / NUDGE**2", ".square()", "a critic's difference not over its step"),
    Slip("losses/matching.py", "fresh.lawful * discern(", "discern(", "matching: a critic that is shown ends of wider starts"),
    Slip("training/trainer.py", "if norm or engine is self.engine", "if True", "judges that move before they are asked"),
    Slip("training/examples.py", 'batch["start"] = path.prior(z)', "pass", "a judged student that starts at stored noise",
         ("tests/training/test_trainer.py",)),
    Slip("training/teacher.py", "<= FAR * x.abs().max()) & (places < wider)", "> FAR * x.abs().max()) & (places < wider)", "trajectories that fly off"),
    Slip("training/teacher.py", '"fair" if loss_row(recipe.loss).fair else "learned"', '"learned"', "wider starts where their law counts"),
    Slip("core/times.py", "start.lerp(end, (done - alone) / (wide - alone))", "start.lerp(end, (wide - done) / (wide - alone))", "spans that shrink", ("tests/training/test_teacher.py",)),
    Slip("core/denoiser.py", "span = c.tau - to.tau", "span = c.t - to.t", "a span in the path's time"),
    Slip("networks/clock.py", "- self.features(span.new_zeros(1)), self", ", self", "a span of nothing that isn't nothing"),
    Slip("networks/clock.py", "nn.Parameter(torch.zeros(width, features))", "nn.Parameter(torch.randn(width, features))", "a student that isn't its teacher"),
    Slip("samplers/jump.py", "math.sqrt(1 - renew**2)", "(1 - renew)", "renewed noise: too little kept"),
    Slip("samplers/jump.py", "(then.alpha / end.alpha)", "(end.alpha / then.alpha)", "renewed noise: α upside down"),
    Slip("exact/oracle.py", "both - square * (2 - both)", "both + square * (2 - both)", "the mean slope of a Gaussian's flow"),
    Slip("training/teacher.py", ".where(start > end, i)", "", "no example stays where it is", ("tests/training/test_teacher.py",)),
    Slip("training/teacher.py", "start[:wider] *= WIDER", "start[:wider] *= 1", "no start wider than noise", ("tests/training/test_teacher.py",)),
    Slip("training/teacher.py", "i, indices // STILL)", "i, indices % STILL)", "another trajectory's slopes", ("tests/training/test_teacher.py",)),
    Slip("training/teacher.py", "teacher.recipe.bound, sampler, FAR)", "sampler, FAR)", "trajectories kept under a key without the bound", ("tests/training/test_teacher.py",)),
    Slip("losses/flow_map.py", "(SHARE * period / pace)", "(period / pace)", "a difference over a period of the time features"),
    Slip("exact/jumps.py", "(there.mean() + back[", "(0 * there.mean() + 2 * back[", "modes that are missing", ("tests/exact/test_jumps.py",)),
    Slip("exact/jumps.py", 'own.keys() <= {"label"}', "True", "ends of another observation", ("tests/exact/test_jumps.py",)),
    Slip("exact/jumps.py", "chamfer(landed(tau, choose), end[choose], label)", "chamfer(landed(tau, judge), end[judge], label)", "grids chosen by what judges them", ("tests/exact/test_jumps.py",)),
    # the choices that the figures of docs/results.md rest on
    Slip("networks/clock.py", "f_max: float = 4.0", "f_max: float = 16.0", "time features up to f = 16",
         ("tests/networks/test_mlp.py",)),
    Slip("networks/clock.py", "(1,), self.null, ", "(1,), 0, ", "no label is the first class",
         ("tests/networks/test_clock.py",)),
    Slip("training/flat.py", "betas: tuple[float, float] = (Recipe.beta1, Recipe.beta2)",
         "betas: tuple[float, float] = (Recipe.beta2, Recipe.beta1)", "β₁ and β₂ swapped",
         ("tests/training/test_flat.py",)),
    Slip("networks/mlp.py", "h = h + self.activation(block(h))", "h = self.activation(block(h))", "no residual"),
    Slip("recipes/points.py", "ddpm:variance=beta", "ddpm:variance=posterior", "β̃ for DDPM's thousand steps",
         ("tests/recipes/test_recipes.py",)),
    Slip("recipes/recipe.py", 'grid: str = "quadratic"', 'grid: str = "uniform"', "the uniform grid as default",
         ("tests/recipes/test_recipes.py",)),
    Slip("recipes/points.py", "stable_targets: bool = True", "stable_targets: bool = False", "points' targets plain",
         ("tests/recipes/test_points.py",)),
    Slip("recipes/robots.py", "steps=9000, least=0.05)", "steps=9000)", "joints that hardly move are stretched"),
)  # fmt: skip


def stale(slip: Slip, root: Path = ROOT) -> int | None:
    """How often the slip's text stands in its file, where that isn't once."""
    count = (root / CORE / slip.file).read_text().count(slip.text)
    return None if count == 1 else count


def plant(slip: Slip, source: str) -> str:
    """The file's source with the slip in it."""
    return source.replace(slip.text, slip.instead)


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of what the tests need; everything else stays out of reach."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        copy = Path(name)
        for folder in ("src", "tests", "docs"):  # docs for figures.json, and what test_book reads
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "_build"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        yield copy


@contextmanager
def planted(slip: Slip, copy: Path) -> Iterator[None]:
    """The copy with the slip in it, and afterwards as it was."""
    file = copy / CORE / slip.file
    source = file.read_text()
    compiled = file.parent / "__pycache__"  # is taken for current where size and second are the same
    file.write_text(plant(slip, source))
    shutil.rmtree(compiled, ignore_errors=True)
    try:
        yield
    finally:
        file.write_text(source)
        shutil.rmtree(compiled, ignore_errors=True)


def environment(copy: Path) -> dict[str, str]:
    """Ours, with the copy's ebbtide ahead of the installed one, for the commands that tests start as well."""
    threads = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    return {**os.environ, **threads, "PYTHONPATH": str(copy / "src")}


def run(copy: Path, arguments: Sequence[str], seconds: float) -> tuple[int, str]:
    """Python in the copy: its exit status and what it says; -1 when it had to be stopped."""
    command = [sys.executable, *arguments]
    try:
        done = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return -1, f"not finished after {seconds:g} s"
    return done.returncode, done.stdout + done.stderr


def tested(copy: Path, which: Sequence[str] | None, *, traced: bool) -> tuple[str, str]:
    """passed, found (and by which test) or error (and why), of some tests or, for None, of the whole fast suite.

    traced: beside the test that found something, say how it failed.
    """
    how = "--tb=short" if traced else "--tb=no"
    fast = ["-m", "pytest", "-m", "not slow", "-x", "-q", "-p", "no:cacheprovider", how, "-rfE"]
    everything = [*workers(), *(f"--ignore=tests/{name}" for name in BESIDE), "tests"]
    status, said = run(
        copy, [*fast, *(everything if which is None else which)], SECONDS["all" if which is None else "likely"]
    )
    if status == 0:
        return "passed", ""
    # A test has "::" in its name; a file that can't be imported, which proves nothing, hasn't.
    first = re.search(r"^(?:FAILED|ERROR) (\S+::.*?)(?: - .*)?$", said, re.M)
    if status == 1 and first:
        return "found", f"{first[1]}{f': {said.strip()[-4000:]}' * traced}"
    return "error", f"pytest ended with {status}: {said.strip()[-2000:]}"


def workers() -> list[str]:
    """Two processes where pytest-xdist is installed."""
    return ["-n", "2", "--dist", "worksteal"] if importlib.util.find_spec("xdist") else []


def judge(slip: Slip, copy: Path, quick: bool) -> Verdict:
    """Plant the slip and see whether a test finds it: a likely one or, where none does, any fast one."""
    start = time.perf_counter()
    with planted(slip, copy):
        outcome, by = tested(copy, slip.tests, traced=False)
    if outcome == "passed" and not quick:
        outcome, by = suite(copy)
        if outcome == "passed":
            with planted(slip, copy):
                outcome, by = tested(copy, None, traced=False)
        else:
            outcome, by = "error", f"without any slip: {outcome} {by}"
    return Verdict(slip, "survived" if outcome == "passed" else outcome, by, time.perf_counter() - start)


@cache
def suite(copy: Path) -> tuple[str, str]:
    """The whole fast suite without any slip; minutes, so only where a slip needs it, and once."""
    return tested(copy, None, traced=False)


def sound(slips: Sequence[Slip], copy: Path) -> str:
    """What is wrong before any slip is planted; nothing, if all is well."""
    _, said = run(copy, ["-c", "import ebbtide; print(ebbtide.__file__)"], SECONDS["likely"])
    if not Path(said.strip()).is_relative_to(copy):
        return f"The tests would not import the copy but {said.strip()}"
    # Else a broken suite would be taken for one that finds everything.
    outcome, by = tested(copy, sorted({test for slip in slips for test in slip.tests}), traced=True)
    return "" if outcome == "passed" else f"Without any slip the tests must pass: {outcome} {by}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with this in their file or words")
    parser.add_argument("--list", action="store_true", help="list the rows and stop")
    parser.add_argument("--quick", action="store_true", help="run the likely tests alone")
    return parser.parse_args()


def line(verdict: Verdict) -> str:
    slip, outcome, by, seconds = verdict
    return f"{outcome:8}  {seconds:5.1f} s  {slip.file}: {slip.wrong}{f'  ← {by}' if by else ''}"


def summary(verdicts: Sequence[Verdict]) -> str:
    """Per file how many were found, and then what wasn't."""
    rows = [f"{'file':28} {'slips':>5} {'found':>5} {'seconds':>7}"]
    for file in dict.fromkeys(verdict.slip.file for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.slip.file == file]
        found = sum(verdict.outcome == "found" for verdict in own)
        rows.append(f"{file:28} {len(own):5} {found:5} {sum(verdict.seconds for verdict in own):7.0f}")
    return "\n".join([*rows, *(line(verdict) for verdict in verdicts if verdict.outcome != "found")])


def main() -> int:
    """0 when every slip was found, 1 when any was not, 2 when the check itself can't be made."""
    given = arguments()
    slips = [slip for slip in SLIPS if given.only.lower() in f"{slip.file} {slip.wrong}".lower()]
    for slip in SLIPS:
        if (count := stale(slip)) is not None:
            print(f"This row has gone stale, its text is there {count} times: {slip}", file=sys.stderr)
            return 2
    if given.list or not slips:
        print("\n".join(f"{slip.file}: {slip.wrong}" for slip in slips) or "No row has this in its file or words.")
        return 0 if slips else 2
    with copied() as copy:
        if trouble := sound(slips, copy):
            print(trouble, file=sys.stderr)
            return 2
        verdicts = []
        for slip in tqdm(slips, unit="slip"):
            verdicts.append(judge(slip, copy, given.quick))
            tqdm.write(line(verdicts[-1]))
    print(summary(verdicts))
    return int(any(verdict.outcome != "found" for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
