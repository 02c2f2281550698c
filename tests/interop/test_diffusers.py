"""diffusers and ebbtide side by side: same network, noise and times, same trajectory; or one of them is wrong.

The network is an exact denoiser, asked at the very σ of the scheduler's table. (A pipeline passes the timestep instead,
which several schedulers round: see test_integer_times.) docs/diffusers.md says in words what was found.
"""

import importlib
import math
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch

from cells import each
from ebbtide import samplers
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.guidance import Bounded
from ebbtide.core.paths import DDPM, VE, Linear, Scales
from ebbtide.core.randomness import Draws
from ebbtide.core.times import grid_times
from ebbtide.errors import InputError
from ebbtide.exact.oracle import gaussian, mixture
from ebbtide.interop.diffusers import from_diffusers
from ebbtide.samplers import trajectory
from problems import float64, last, noise_like

# diffusers deprecates at import, and converting warns by design.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.unchecked]


@dataclass(frozen=True)
class Replay(Draws):
    """The noise that diffusers drew, by step."""

    recorded: tuple[torch.Tensor, ...] = ()

    def __call__(self, step, x):
        return self.recorded[step]


class Walk(NamedTuple):
    """What a scheduler did, in our variables: times, x at each of them, and the noise of each step."""

    times: torch.Tensor
    states: list[torch.Tensor]
    draws: Replay


def make(name, **config):
    return getattr(importlib.import_module("diffusers"), name)(**config)  # seconds, so not on collecting


# A scheduler's σ is σ/α of a variance preserving path, or the linear path's own σ, or EDM's.
def space_of(scheduler):
    name, config = type(scheduler).__name__, scheduler.config
    if name.startswith("EDM"):
        return "edm"
    return "flow" if "Flow" in name or config.get("use_flow_sigmas") else "vp"


def path_of(scheduler):
    space = space_of(scheduler)
    if space == "vp":
        bar = torch.cat([float64(1.0), scheduler.alphas_cumprod.double()])
        return DDPM(table=tuple((1 - bar[1:] / bar[:-1]).tolist()))
    return Linear() if space == "flow" else VE(scheduler.config.sigma_max)


def scales_at(sigma, space):
    """t is not used; α and σ are those of the scheduler, exactly."""
    sigma = float(sigma)
    alpha = {"vp": (1 + sigma**2) ** -0.5, "flow": 1 - sigma, "edm": 1.0}[space]
    return Scales(math.nan, alpha, alpha * sigma if space == "vp" else sigma, math.nan, math.nan)


def answer(estimate, x, c, prediction, data_std=0.5):
    """What a network with this prediction_type would have said."""
    if prediction == "edm":
        norm = math.hypot(c.sigma, data_std)
        return (estimate.x0 - data_std**2 / norm**2 * x) / (c.sigma * data_std / norm)
    if prediction == "v_prediction":
        return c.alpha * estimate.noise - c.sigma * estimate.x0
    x0, noise = estimate
    return {"epsilon": noise, "sample": x0, "flow_prediction": noise - x0}[prediction]


def sigmas_of(scheduler):
    """σ at each evaluation and at the end. In float64, and so are the coefficients; some keep x in float32 anyway."""
    if hasattr(scheduler, "sigmas"):
        scheduler.sigmas = scheduler.sigmas.double()
        return scheduler.sigmas
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    return torch.cat([(1 / scheduler.alphas_cumprod[scheduler.timesteps] - 1).sqrt(), float64(0.0)])


def walk(scheduler, oracle, start, steps, *, clock=None, **options):
    """diffusers' documented loop: set_timesteps, then scale_model_input, network and step for each timestep.

    clock: what σ the network is told instead of the exact one, as a function of the timestep. options: of `step`.
    """
    name, space, recorded = type(scheduler).__name__, space_of(scheduler), []
    generator = torch.Generator().manual_seed(1)

    def randn(shape, **_):
        recorded.append(torch.randn(shape, generator=generator, dtype=torch.float64))
        return recorded[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module(type(scheduler).__module__), "randn_tensor", randn, raising=False)
        scheduler.set_timesteps(steps)
        sigmas = sigmas_of(scheduler)
        prediction = {"flow": "flow_prediction", "edm": "edm"}.get(space) or scheduler.config.prediction_type
        keeps_ratio = space == "vp" and name.startswith(("Euler", "Heun", "LMS"))  # their x is x/α
        ours = lambda x, c: c.alpha * x if keeps_ratio else x
        x = start * getattr(scheduler, "init_noise_sigma", 1.0)
        states = [ours(x, scales_at(sigmas[0], space))]
        for i, timestep in enumerate(scheduler.timesteps):
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input(x, timestep)  # what it returns is ours(x), or for EDM part of its network
            x_t = ours(x, scales_at(sigmas[i], space))
            c = scales_at(sigmas[i] if clock is None else clock(float(timestep)), space)
            y = answer(oracle(x_t, c), x_t, c, prediction)
            x = scheduler.step(y, timestep, x, **options).prev_sample
            states.append(ours(x, scales_at(sigmas[i + 1], space)))
    times = sigmas if space == "flow" else torch.where(sigmas == 0, 0.0, path_of(scheduler).time_of(sigmas))
    if "Heun" in name or "Single" in name:  # two evaluations a step: the first leads to no x of ours
        times = torch.cat([times[:1], times[2:-1:2], times[-1:]])
        states = [states[0], *states[2:-1:2], states[-1]]
    return Walk(times, states, Replay(0, torch.arange(len(start)), tuple(recorded)))


def follow(spec, oracle, walked):
    """Our sampler on the same times, from the same x, with the same noise."""
    steps = samplers.walk(spec, oracle, walked.states[0], walked.times, draws=walked.draws)
    return [walked.states[0], *steps]


def difference(walked, states):
    """The largest over all steps, relative to the data, whose scale is 1."""
    return max(float((a - b).abs().max()) for a, b in zip(walked.states, states, strict=True))


def three_modes(path):
    return mixture(path, float64(-1.0, 0.3, 0.6, -0.8, 0.9, 1.0).reshape(3, 2), 0.2)


UNIPC, UNIPC3 = "unipc:order=2,variant=bh2", "unipc:order=3,variant=bh2"
BETAS = torch.linspace(0.002, 0.2, 50).tolist()
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
TRAILING = {"timestep_spacing": "trailing", "clip_sample": False}
LOG_UNIFORM = {"use_exponential_sigmas": True}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
TO_SIGMA_MIN = {"final_sigmas_type": "sigma_min", "lower_order_final": False}

# scheduler, its settings where they are not the defaults, the options of its step, its steps; our sampler.
PARITY: list[tuple[str, dict[str, Any], dict[str, Any], int, str]] = [
    # They clip x̂₀ unless told otherwise. On the leading grid the first time is less than 1 (see below).
    ("DDPMScheduler", TRAILING, {}, 10, "ddpm"),
    ("DDPMScheduler", {"clip_sample": False, "variance_type": "fixed_large"}, {}, 10, "ddpm:variance=beta"),
    ("DDPMScheduler", {"clip_sample": False, "timestep_spacing": "linspace"}, {}, 7, "ddpm"),
    ("DDPMScheduler", {"clip_sample": False}, {}, 1000, "ddpm"),
    # DDIM finds its next time by t - N // n, which is the grid's only where n divides N.
    ("DDIMScheduler", TRAILING, {"eta": 0.0}, 10, "ddim"),
    ("DDIMScheduler", TRAILING, {"eta": 0.5}, 10, "ddim:eta=0.5"),
    ("DDIMScheduler", TRAILING, {"eta": 1.0}, 10, "ddim:eta=1.0"),
    ("DDIMScheduler", {"clip_sample": False}, {}, 10, "ddim"),
    ("DDIMScheduler", TRAILING | {"prediction_type": "v_prediction"}, {}, 10, "ddim"),
    ("DDIMScheduler", TRAILING | {"prediction_type": "sample"}, {}, 10, "ddim"),
    ("EulerDiscreteScheduler", {}, {}, 10, "ddim"),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "prediction_type": "v_prediction"}, {}, 10, "ddim"),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, {}, 7, "ddim"),
    ("EulerDiscreteScheduler", {"use_exponential_sigmas": True}, {}, 10, "ddim"),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing", "use_karras_sigmas": True}, {}, 10, "ddim"),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}, {}, 9, "ddim"),
    ("EulerDiscreteScheduler", STABLE_DIFFUSION, {}, 10, "ddim"),
    ("EulerDiscreteScheduler", {"trained_betas": BETAS, "num_train_timesteps": 50}, {}, 10, "ddim"),
    ("EulerAncestralDiscreteScheduler", {}, {}, 10, "ddpm"),
    ("EulerAncestralDiscreteScheduler", {"prediction_type": "v_prediction"}, {}, 10, "ddpm"),
    ("HeunDiscreteScheduler", {}, {}, 10, "edm"),
    ("HeunDiscreteScheduler", {"use_karras_sigmas": True, "prediction_type": "v_prediction"}, {}, 10, "edm"),
    ("LMSDiscreteScheduler", {"use_karras_sigmas": True}, {}, 10, "lms"),
    ("LMSDiscreteScheduler", {}, {"order": 3}, 20, "lms:order=3"),
    ("DPMSolverMultistepScheduler", {}, {}, 10, "dpmpp_2m"),
    ("DPMSolverMultistepScheduler", {"solver_order": 1}, {}, 10, "ddim"),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, {}, 20, "dpmpp_2m"),
    ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}, {}, 10, "dpmpp_2m"),
    ("DPMSolverMultistepScheduler", {"beta_schedule": "squaredcos_cap_v2"}, {}, 10, "dpmpp_2m"),
    ("DPMSolverMultistepScheduler", {"rescale_betas_zero_snr": True, **STABLE_DIFFUSION}, {}, 10, "dpmpp_2m"),
    ("DPMSolverMultistepScheduler", {"prediction_type": "v_prediction"}, {}, 10, "dpmpp_2m"),
    ("DPMSolverMultistepScheduler", FLOW | {"flow_shift": 3.0}, {}, 10, "dpmpp_2m"),
    ("DPMSolverMultistepScheduler", {"solver_type": "heun"}, {}, 10, "exponential:order=2,clock=log_snr"),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}, 10, "dpmpp_2m_sde"),
    (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 1},
        {},
        10,
        "exponential_sde",
    ),
    # Half-way in λ, as ours, where the grid is even in it; an odd number of steps ends with a single one.
    ("DPMSolverSinglestepScheduler", LOG_UNIFORM, {}, 11, "dpmpp_2s"),
    ("DPMSolverSinglestepScheduler", LOG_UNIFORM | {"prediction_type": "v_prediction"}, {}, 11, "dpmpp_2s"),
    ("UniPCMultistepScheduler", {}, {}, 10, UNIPC),
    ("UniPCMultistepScheduler", {"timestep_spacing": "leading", "steps_offset": 1}, {}, 9, UNIPC),
    ("UniPCMultistepScheduler", {"timestep_spacing": "trailing"}, {}, 9, UNIPC),
    # bh1 gives nan on the way to σ = 0 (below).
    ("UniPCMultistepScheduler", TO_SIGMA_MIN | {"solver_type": "bh1"}, {}, 10, "unipc:order=2,variant=bh1"),
    ("UniPCMultistepScheduler", {"prediction_type": "v_prediction"}, {}, 10, UNIPC),
    ("UniPCMultistepScheduler", FLOW | {"flow_shift": 3.0}, {}, 10, UNIPC),
    # With lower_order_final they also lower the order of the last step but one; we do where steps grow in λ.
    ("UniPCMultistepScheduler", {"solver_order": 3}, {}, 10, "unipc:order=3,variant=bh2"),
    ("UniPCMultistepScheduler", {"solver_order": 3}, {}, 50, "unipc:order=3,variant=bh2"),
    ("UniPCMultistepScheduler", TO_SIGMA_MIN | {"solver_order": 3}, {}, 10, "unipc:order=3,variant=bh2"),
    (
        "UniPCMultistepScheduler",
        TO_SIGMA_MIN | {"solver_order": 3, "solver_type": "bh1"},
        {},
        10,
        "unipc:order=3,variant=bh1",
    ),
    (
        "DEISMultistepScheduler",
        {"lower_order_final": False},
        {},
        10,
        "exponential:order=2,form=noise,clock=log_snr",
    ),
    (
        "DEISMultistepScheduler",
        {"lower_order_final": False, "solver_order": 3},
        {},
        10,
        "exponential:order=3,form=noise,clock=log_snr",
    ),
    (
        "DEISMultistepScheduler",
        {"solver_order": 3, "prediction_type": "v_prediction"},
        {},
        20,
        "exponential:order=3,form=noise,clock=log_snr",
    ),
    ("EDMEulerScheduler", {}, {}, 10, "ddim"),
    ("EDMEulerScheduler", {"sigma_schedule": "exponential"}, {}, 10, "ddim"),
    ("EDMDPMSolverMultistepScheduler", {}, {}, 10, "dpmpp_2m"),
    ("EDMDPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}, 10, "dpmpp_2m_sde"),
    ("FlowMatchEulerDiscreteScheduler", {}, {}, 10, "euler"),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, {}, 10, "euler"),
    ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}, {}, 10, "heun"),
]


def name_of(row):
    name, config, options, steps, _ = row
    settings = ",".join(f"{key}={value!s:.20}" for key, value in {**config, **options}.items())
    return f"{name.removesuffix('Scheduler')}-{settings}-{steps}"


class TestParity:
    @each("row", PARITY, ids=name_of)
    def test_the_trajectories_are_the_same(self, row):
        name, config, options, steps, spec = row
        scheduler = make(name, **config)
        oracle = three_modes(path_of(scheduler))
        walked = walk(scheduler, oracle, noise_like(16, 2), steps, **options)
        assert float(walked.states[-1].std()) > 0.5  # data, not a walk that went nowhere
        worst = difference(walked, follow(spec, oracle, walked))
        print(f"PARITY {name_of(row)} {spec} {worst:.1e}")
        assert worst < 1e-5

    @each("row", PARITY, ids=name_of)
    def test_the_config_converts_to_that_sampler_path_and_times(self, row):
        name, config, options, steps, spec = row
        scheduler = make(name, **config)
        walked = walk(scheduler, three_modes(path_of(scheduler)), noise_like(1, 2), steps, **options)
        path, grid, sampler, _ = from_diffusers({"_class_name": name, **scheduler.config, **options}, steps)
        assert sampler == spec
        if isinstance(path, DDPM):
            expected = torch.cat([float64(1.0), scheduler.alphas_cumprod.double()])
            torch.testing.assert_close(path.log_alpha_bar, expected.log(), rtol=1e-4, atol=1e-6)
        assert len(grid_times(grid, steps, path)) == len(walked.times)
        apart = (float64(*grid) - walked.times).abs()[1:-1]
        assert float(apart.max()) < 2e-5  # their σ is that of a float32 ᾱ
        assert from_diffusers(scheduler, steps).path == path


def data(path, mean=0.7, std=0.5):
    return gaussian(path, float64(mean), std)


def ours(spec, oracle, start, grid, steps):
    """Our sampler from the same noise, on a grid of ours."""
    times = grid_times(grid, steps, oracle.path)
    return last(samplers.walk(spec, oracle, start, times, draws=Draws.first(len(start), 3)))


def rms(x, y):
    return float((x - y).square().mean().sqrt())


def show(what, theirs, own):
    print(f"\nDEVIATION {what}: diffusers {theirs:.4g}, ebbtide {own:.4g}")


def test_the_harness_sees_a_difference():
    walked = walk(make("DPMSolverMultistepScheduler"), oracle := three_modes(DDPM()), noise_like(16, 2), 10)
    assert difference(walked, follow("ddim", oracle, walked)) > 0.01
    assert difference(walked, follow("exponential:order=2,clock=log_snr", oracle, walked)) > 0.01


class Fraction(torch.nn.Module):
    """x k / (k + 1), the network of diffusers' own tests; k is the timestep that stands for the nearest time."""

    def __init__(self, times, timesteps, alphas):
        super().__init__()
        self.times, self.timesteps, self.alphas = times, timesteps, alphas

    def forward(self, x, t):
        i = int((self.times - t).abs().argmin())
        k = float(self.timesteps[i])
        return x / self.alphas[i] * k / (k + 1)


TABLE_1100 = {"num_train_timesteps": 1100}
V = {"prediction_type": "v_prediction"}
KARRAS = {"use_karras_sigmas": True}
# The "full loops" of diffusers' tests/schedulers: scheduler, settings, steps, and Σ|x| at the end (there to 0.01, and
# to 0.001 where it is given as a mean of 768 numbers).
PUBLISHED: list[tuple[str, dict[str, Any], int, float]] = [
    ("DDPMScheduler", {}, 1000, 258.9606),
    ("DDPMScheduler", V, 1000, 202.0296),
    ("DDIMScheduler", {}, 10, 172.0067),
    ("DDIMScheduler", V, 10, 52.5302),
    ("DDIMScheduler", {"beta_start": 0.01}, 10, 149.8295),
    ("DDIMScheduler", {"beta_start": 0.01, "set_alpha_to_one": False}, 10, 149.0784),
    ("EulerDiscreteScheduler", TABLE_1100, 10, 10.0807),
    ("EulerDiscreteScheduler", TABLE_1100 | KARRAS, 10, 124.52299),
    ("EulerAncestralDiscreteScheduler", TABLE_1100, 10, 152.3192),
    ("EulerAncestralDiscreteScheduler", TABLE_1100 | V, 10, 108.4439),
    ("LMSDiscreteScheduler", TABLE_1100, 10, 1006.388),
    ("LMSDiscreteScheduler", TABLE_1100 | KARRAS, 10, 3812.9927),
    ("DPMSolverMultistepScheduler", TO_SIGMA_MIN, 10, 768 * 0.3301),
    ("DPMSolverMultistepScheduler", TO_SIGMA_MIN | V, 10, 768 * 0.2251),
    ("DPMSolverMultistepScheduler", TO_SIGMA_MIN | V | KARRAS, 10, 768 * 0.2096),
    ("DPMSolverMultistepScheduler", TO_SIGMA_MIN | V | {"use_lu_lambdas": True}, 10, 768 * 0.1554),
    ("EDMEulerScheduler", {}, 10, 34.1855),
]


@pytest.mark.parametrize(("name", "config", "steps", "published"), PUBLISHED)
def test_a_walk_ends_where_the_published_constant_does(name, config, steps, published):
    """Our Denoiser and sampler, from their start by their times and their noise.

    The tests of Euler's and LMS go on from what scale_model_input made of x/α: there x is α times what it was
    before every step, and the network sees x/α.
    """
    scheduler = make(name, **config)
    path, _, spec, target = from_diffusers(scheduler)
    scheduler.set_timesteps(steps)
    sigmas, timesteps = sigmas_of(scheduler), scheduler.timesteps
    if scheduler.config.get("set_alpha_to_one") is False:
        sigmas[-1] = path.along([0.001])[0].ratio
    times = torch.where(sigmas == 0, 0.0, path.time_of(sigmas))
    keeps_ratio = name.startswith(("Euler", "LMS"))
    alphas = [c.alpha if keeps_ratio else 1.0 for c in path.along(times)]
    network = Fraction(timesteps if "EDM" in name else times[:-1], timesteps, alphas)
    denoiser = Denoiser(network, path, target)
    if scheduler.config.get("clip_sample"):
        denoiser = Bounded(denoiser, keep_noise="DDIM" in name)
    start = (torch.arange(768).reshape(3, 8, 8, 4) / 768).permute(3, 0, 1, 2).double()
    generator = torch.manual_seed(0)
    draws = Replay(0, torch.arange(4), tuple(torch.randn(start.shape, generator=generator) for _ in range(steps)))
    start = alphas[0] * (path.prior(start) if keeps_ratio or "EDM" in name else start)
    walked = samplers.walk(spec, denoiser, start, times, draws=draws)
    for x, alpha in zip(walked, alphas[1:], strict=True):
        x.mul_(alpha)
    assert float(x.abs().sum()) == pytest.approx(published, rel=2e-5, abs=0.768 if name.startswith("DPM") else 0.01)


class TestDeviations:
    """Where diffusers 0.42.1 is wrong, against closed forms. `pytest -s -k Deviations` prints the docs' numbers."""

    def test_clip_sample_is_on_and_loses_data_outside_of_minus_one_to_one(self):
        scheduler, z = make("DDIMScheduler"), noise_like(20_000, 1)
        oracle = data(path_of(scheduler), 2.0)
        theirs = float(walk(scheduler, oracle, z, 50).states[-1].mean()) - 2
        own = float(ours("ddim", oracle, z, "trailing", 50).mean()) - 2
        show("default DDIM's mean error on data at 2, 50 steps", theirs, own)
        assert theirs < -2.2
        assert abs(own) < 0.04  # α(1) = 0.006 leaves 0.013, the mean of 20 000 numbers another 0.02

    @pytest.mark.parametrize(("steps", "divides"), [(100, True), (150, False), (600, False)])
    def test_ddim_steps_by_n_over_the_steps_wherever_the_grid_is(self, steps, divides):
        scheduler, z = make("DDIMScheduler", **TRAILING), noise_like(2000, 1)
        oracle = data(path_of(scheduler))
        exact = oracle.flow(z, 1.0, 0.0)
        theirs = rms(walk(scheduler, oracle, z, steps).states[-1], exact)
        own = rms(ours("ddim", oracle, z, "trailing", steps), exact)
        show(f"DDIM's error on {steps} trailing steps", theirs, own)
        assert theirs == pytest.approx(own, rel=0.01) if divides else theirs > 4 * own

    @pytest.mark.parametrize(("steps", "start"), [(10, 0.901), (50, 0.981), (600, 0.6)])
    def test_leading_takes_pure_noise_for_less_than_it_is(self, steps, start):
        scheduler, z = make("DDIMScheduler", clip_sample=False, **STABLE_DIFFUSION), noise_like(20_000, 1)
        oracle = data(path_of(scheduler), 2.0)
        walked = walk(scheduler, oracle, z, steps)
        assert float(walked.times[0]) == pytest.approx(start)
        theirs = float(walked.states[-1].mean()) - 2
        own = float(ours("ddim", oracle, z, "trailing", steps).mean()) - 2  # this path keeps α(1) = 0.07 of the data
        show(f"mean error on data at 2 from the leading grid, {steps} steps", theirs, own)
        assert theirs < own - 0.005

    def test_ddpm_with_fixed_large_adds_noise_to_the_finished_sample(self):
        scheduler, z = make("DDPMScheduler", variance_type="fixed_large", **TRAILING), noise_like(20_000, 1)
        oracle = data(path_of(scheduler), 0.7, 0.1)
        theirs = float(walk(scheduler, oracle, z, 50).states[-1].std())
        own = float(ours("ddpm:variance=beta", oracle, z, "trailing", 50).std())
        show("std of data whose std is 0.1, fixed_large on 50 trailing steps", theirs, own)
        assert theirs > 0.12
        assert own < 0.11

    @pytest.mark.parametrize(
        ("name", "config", "spec"),
        [
            ("DDPMScheduler", {"clip_sample": False, "variance_type": "fixed_large_log"}, "ddpm:variance=beta"),
            ("UniPCMultistepScheduler", {"solver_type": "bh1"}, "unipc:variant=bh1"),
        ],
    )
    def test_settings_that_give_nan(self, name, config, spec):
        scheduler, z = make(name, **config), noise_like(4, 1)
        oracle = data(path_of(scheduler))
        assert bool(walk(scheduler, oracle, z, 10).states[-1].isnan().all())
        assert bool(ours(spec, oracle, z, "uniform", 10).isfinite().all())

    def test_flow_match_euler_spends_its_last_step_on_a_thousandth(self):
        scheduler, z = make("FlowMatchEulerDiscreteScheduler"), noise_like(500, 2)
        oracle = three_modes(Linear())
        exact = ours("rk4", oracle, z, "power:exponent=2", 400)
        walked = walk(scheduler, oracle, z, 4)
        theirs, own, fewer = (
            rms(x, exact)
            for x in (walked.states[-1], ours("euler", oracle, z, "uniform", 4), ours("euler", oracle, z, "uniform", 3))
        )
        show("FlowMatchEuler's error in 4 steps", theirs, own)
        assert float(walked.times[-2]) == pytest.approx(0.001)
        assert theirs == pytest.approx(fewer, rel=0.01)  # as good as three
        assert theirs > 1.3 * own
        scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])  # the remedy
        assert scheduler.sigmas.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]

    @pytest.mark.parametrize(
        ("name", "spec", "bias"),
        [
            ("DEISMultistepScheduler", "exponential:order=2,form=noise,clock=log_snr", -0.15),
            ("SASolverScheduler", "dpmpp_2m_sde", -0.15),
        ],
    )
    def test_a_last_sigma_twice_leaves_the_noise_in(self, name, spec, bias):
        scheduler, z = make(name, **FLOW), noise_like(20_000, 1)
        oracle = data(Linear(), 2.0)
        walked = walk(scheduler, oracle, z, 10)
        assert float(walked.times[-1]) == float(walked.times[-2]) > 0.09
        theirs, own = float(walked.states[-1].mean()) - 2, float(ours(spec, oracle, z, "uniform", 10).mean()) - 2
        show(f"{name}'s mean error on data at 2, flow, 10 steps", theirs, own)
        assert theirs < bias
        assert abs(own) < 0.04

    @pytest.mark.parametrize(
        ("name", "spec"), [("UniPCMultistepScheduler", "unipc"), ("DPMSolverMultistepScheduler", "dpmpp_2m")]
    )
    def test_integer_times(self, name, spec):
        """A pipeline asks the network at scheduler.timesteps / 1000, which these cut to whole numbers."""
        z, oracle = noise_like(1000, 1), data(Linear())
        exact = oracle.flow(z, 1.0, 0.0)
        cut, fine = (
            rms(walk(make(name, **FLOW), oracle, z, 100, clock=clock).states[-1], exact)
            for clock in (lambda timestep: timestep / 1000, None)
        )
        own = rms(ours(spec, oracle, z, "uniform", 100), exact)
        show(f"{name}'s error on a flow in 100 steps (with σ itself {fine:.2g})", cut, own)
        assert cut > 9e-4
        assert own < 6e-4
        assert fine < cut

    @pytest.mark.parametrize(
        ("name", "spec", "bound"),
        [("DEISMultistepScheduler", "deis", 0.005), ("UniPCMultistepScheduler", UNIPC3, 0.004)],
    )
    def test_the_last_steps_of_order_3_are_no_worse_than_theirs(self, name, spec, bound):
        """50 linspace steps; DEIS ends at σ_min there, where it is judged. With order 3 to the end: 0.011, 0.0098."""
        z = noise_like(1000, 1)
        scheduler = make(name, solver_order=3)
        oracle = data(path_of(scheduler))
        walked = walk(scheduler, oracle, z, 50)
        theirs = rms(walked.states[-1], oracle.flow(z, 1.0, float(walked.times[-1])))
        own = rms(ours(spec, oracle, z, [*walked.times[:-1].tolist(), 0.0], 50), oracle.flow(z, 1.0, 0.0))
        show(f"{name}'s error, order 3, 50 linspace steps", theirs, own)
        assert own < bound

    @pytest.mark.parametrize(
        ("spacing", "steps", "moved"),
        [("use_karras_sigmas", 300, 5e-5), ("use_exponential_sigmas", 100, 1e-3), ("use_lu_lambdas", 300, 1e-5)],
    )
    def test_the_times_of_spaced_sigmas_are_whole(self, spacing, steps, moved):
        """DPM-Solver++'s, UniPC's and DEIS's σ lie between timesteps, but the network is told one; ours is told σ's."""
        scheduler, z = make("DPMSolverMultistepScheduler", **{spacing: True}), noise_like(1000, 1)
        path = path_of(scheduler)
        oracle = data(path)
        table = [c.ratio for c in path.along(torch.arange(1, 1001) / 1000)]
        walked = walk(scheduler, oracle, z, steps)
        rounded = walk(scheduler, oracle, z, steps, clock=lambda timestep: table[int(timestep)])
        exact = oracle.flow(z, 1.0, 0.0)
        own = last(follow("dpmpp_2m", oracle, walked))
        show(f"DPM-Solver++'s error with {spacing} in {steps} steps", rms(rounded.states[-1], exact), rms(own, exact))
        assert rms(own, walked.states[-1]) < 1e-6
        assert rms(own, rounded.states[-1]) > moved

    def test_lms_begun_half_way_takes_weights_of_estimates_it_has_not(self):
        """As image to image does: from x at the grid's middle, 20 steps in all."""
        scheduler, z = make("LMSDiscreteScheduler"), noise_like(1000, 1)
        oracle = data(path_of(scheduler))
        whole = walk(scheduler, oracle, z, 20)
        middle = oracle.flow(z, 1.0, float(whole.times[10]))
        scheduler = make("LMSDiscreteScheduler")
        scheduler.set_timesteps(20)
        scheduler.set_begin_index(10)
        scales = [scales_at(sigma, "vp") for sigma in sigmas_of(scheduler)]
        x = middle / scales[10].alpha
        for timestep, c in zip(scheduler.timesteps[10:], scales[10:-1], strict=True):
            scheduler.scale_model_input(x, timestep)
            x = scheduler.step(oracle(c.alpha * x, c).noise, timestep, x).prev_sample
        exact = oracle.flow(z, 1.0, 0.0)
        own = rms(last(samplers.walk("lms", oracle, middle, whole.times[10:])), exact)
        show("LMS's error from the middle of 20 steps", rms(x, exact), own)
        assert rms(x, exact) > 10 * own

    def test_dpm_solver_of_order_3_has_half_of_its_last_term(self):
        z, errors = noise_like(64, 1), {}
        config = LOG_UNIFORM | {"solver_order": 3, "solver_type": "heun", "lower_order_final": False}
        for steps in (40, 80, 160):
            scheduler, mended = make("DPMSolverMultistepScheduler", **config), whole_third_order(**config)
            oracle = data(path_of(scheduler))
            theirs, whole = walk(scheduler, oracle, z, steps), walk(mended, oracle, z, steps)
            followed = follow("dpmpp_3m", oracle, whole)
            assert difference(whole, followed) < 1e-5  # that term is all that is between them
            exact = oracle.flow(z, 1.0, float(whole.times[-2]))
            errors[steps] = rms(theirs.states[-2], exact), rms(followed[-2], exact)
            show(f"DPM-Solver++(3M)'s error in {steps} steps", *errors[steps])
        theirs, own = (math.log2(coarse / fine) for coarse, fine in zip(errors[80], errors[160], strict=True))
        show("its order of convergence", theirs, own)
        assert 1.8 < theirs < 2.3
        assert own > 2.9

    @pytest.mark.parametrize(
        ("name", "churn", "low"), [("EDMEulerScheduler", 40.0, 0.08), ("FlowMatchHeunDiscreteScheduler", 10.0, 0.5)]
    )
    def test_churn_asks_the_network_about_another_sample_than_it_moves(self, name, churn, low):
        scheduler, z = make(name), noise_like(20_000, 1)
        oracle = data(path_of(scheduler))
        walked = walk(scheduler, oracle, z, 50, s_churn=churn)
        own = float(ours(f"edm:churn={churn}", oracle, walked.states[0], walked.times.tolist(), 50).mean()) - 0.7
        theirs = float(walked.states[-1].mean()) - 0.7
        show(f"{name}'s mean error with s_churn={churn:g}, 50 steps", theirs, own)
        assert abs(theirs) > low
        assert abs(own) < 0.02

    def test_rescaling_the_default_betas_to_zero_snr_makes_the_last_noise_level_fall(self):
        bar = make("DPMSolverMultistepScheduler", rescale_betas_zero_snr=True).alphas_cumprod
        assert float(bar[-1]) > 10 * float(bar[-2])
        path = from_diffusers({"_class_name": "DPMSolverMultistepScheduler", "rescale_betas_zero_snr": True}).path
        assert bool((path.log_alpha_bar.diff() < 0).all())

    def test_euler_on_the_cosine_table_loses_digits(self):
        """x/α is about σ/α = 20 000 at first, and its float32 keeps 1e-7 of that."""
        scheduler = make("EulerDiscreteScheduler", beta_schedule="squaredcos_cap_v2")
        oracle = three_modes(path_of(scheduler))
        walked = walk(scheduler, oracle, noise_like(16, 2), 10)
        assert float(scheduler.sigmas[0]) > 1e4
        worst = difference(walked, follow("ddim", oracle, walked))
        show("EulerDiscrete's difference from DDIM on the cosine table", worst, 0)
        assert 1e-4 < worst < 1e-2


def whole_third_order(**config):
    """Their DPM-Solver++(3M) with α_s (∫ of the parabola) x̂₀''/2 h² once more.

    f[t₀, t₁, t₂] of the estimates, by divided differences.
    """
    from diffusers import DPMSolverMultistepScheduler

    class WholeThirdOrder(DPMSolverMultistepScheduler):
        def multistep_dpm_solver_third_order_update(self, model_output_list, *, sample, noise=None):
            x = super().multistep_dpm_solver_third_order_update(model_output_list, sample=sample, noise=noise)
            scales = [self._sigma_to_alpha_sigma_t(self.sigmas[self.step_index + 1 - back]) for back in range(4)]
            clock = [torch.log(alpha / sigma) for alpha, sigma in scales]
            slope = lambda i, j: (model_output_list[-i] - model_output_list[-j]) / (clock[i] - clock[j])
            h, bend = clock[0] - clock[1], (slope(1, 2) - slope(2, 3)) / (clock[1] - clock[3])
            return x - scales[0][0] * (torch.expm1(-h) + h - h**2 / 2) * bend

    return WholeThirdOrder(**config)


# What such models come with: keys of other schedulers are left in their files.
STABLE_DIFFUSION_XL = {
    "_class_name": "EulerDiscreteScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "clip_sample": False, "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon",
    "sample_max_value": 1.0, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "timestep_spacing": "leading", "trained_betas": None, "use_karras_sigmas": False,
}  # fmt: skip
STABLE_DIFFUSION_15 = {
    "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
    "trained_betas": None, "clip_sample": False,
}  # fmt: skip
STABLE_DIFFUSION_3 = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
EDM = {
    "_class_name": "EDMEulerScheduler", "num_train_timesteps": 1000, "prediction_type": "epsilon", "rho": 7.0,
    "sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002,
}  # fmt: skip
SD_PATH = DDPM("scaled_linear", beta_min=0.00085, beta_max=0.012)

NAME = "_class_name"
BY_KARRAS = "karras:rho=7.0,ratio_min=0.002,ratio_max=80.0"
DEIS = "exponential:order=2,form=noise,clock=log_snr"
HEUN_PATH = DDPM(beta_min=0.00085, beta_max=0.012)
COSINE = DDPM("squared_cosine")

# A config, and the whole of what it converts to.
CONVERTED = [
    (STABLE_DIFFUSION_XL, (SD_PATH, "trailing", "ddim", "noise")),
    (STABLE_DIFFUSION_15 | {NAME: "DEISMultistepScheduler"}, (SD_PATH, "uniform", DEIS, "noise")),
    (STABLE_DIFFUSION_3, (Linear(), "shifted:shift=3.0", "euler", "velocity")),
    (EDM, (VE(80.0), BY_KARRAS, "ddim", "edm:data_std=0.5")),
    ({NAME: "EDMDPMSolverMultistepScheduler"}, (VE(80.0), BY_KARRAS, "dpmpp_2m", "edm:data_std=0.5")),
    ({NAME: "DDPMScheduler"}, (DDPM(), "trailing", "ddpm", "noise")),
    ({NAME: "DDIMScheduler", "prediction_type": "v_prediction"}, (DDPM(), "trailing", "ddim", "v")),
    ({NAME: "DDIMScheduler", "prediction_type": "sample", "eta": 0.3}, (DDPM(), "trailing", "ddim:eta=0.3", "x0")),
    ({NAME: "EulerDiscreteScheduler", "beta_schedule": "squaredcos_cap_v2"}, (COSINE, "uniform", "ddim", "noise")),
    ({NAME: "EulerAncestralDiscreteScheduler"}, (DDPM(), "uniform", "ddpm", "noise")),
    ({NAME: "HeunDiscreteScheduler"}, (HEUN_PATH, "uniform", "edm", "noise")),
    ({NAME: "LMSDiscreteScheduler"}, (DDPM(), "uniform", "lms", "noise")),
    ({NAME: "DPMSolverMultistepScheduler", "solver_order": 3}, (DDPM(), "uniform", "dpmpp_3m", "noise")),
    ({NAME: "DPMSolverSinglestepScheduler"}, (DDPM(), "uniform", "dpmpp_2s", "noise")),
    ({NAME: "UniPCMultistepScheduler"}, (DDPM(), "uniform", UNIPC, "noise")),
    ({NAME: "UniPCMultistepScheduler", "flow_shift": 5, **FLOW}, (Linear(), "shifted:shift=5.0", UNIPC, "velocity")),
    ({NAME: "FlowMatchHeunDiscreteScheduler"}, (Linear(), "uniform", "heun", "velocity")),
]

# A config that can't be converted, and the key that the refusal names.
REFUSED = [
    (STABLE_DIFFUSION_15, "DEISMultistepScheduler"),
    ({NAME: "ScoreSdeVeScheduler"}, "_class_name"),
    ({}, "_class_name"),
    ({NAME: "EulerDiscreteScheduler", "use_beta_sigmas": True}, "use_beta_sigmas"),
    ({NAME: "EulerDiscreteScheduler", "interpolation_type": "log_linear"}, "interpolation_type"),
    ({NAME: "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type"),
    ({NAME: "EulerDiscreteScheduler", "sigma_max": 700.0}, "sigma_max"),
    ({NAME: "EulerDiscreteScheduler", "prediction_type": "flow_prediction"}, "prediction_type"),
    ({NAME: "EulerDiscreteScheduler", "trained_betas": [0.1, 0.2]}, "trained_betas"),
    ({NAME: "DDPMScheduler", "variance_type": "learned_range"}, "variance_type"),
    ({NAME: "DDPMScheduler", "beta_schedule": "sigmoid"}, "beta_schedule"),
    ({NAME: "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}, "algorithm_type"),
    ({NAME: "DPMSolverMultistepScheduler", "lambda_min_clipped": -5.1}, "lambda_min_clipped"),
    ({NAME: "DPMSolverMultistepScheduler", "variance_type": "learned_range"}, "variance_type"),
    ({NAME: "DPMSolverMultistepScheduler", "use_karras_sigmas": True, **FLOW}, "use_karras_sigmas"),
    ({NAME: "DPMSolverSinglestepScheduler", "solver_order": 3}, "solver_order"),
    ({NAME: "UniPCMultistepScheduler", "predict_x0": False}, "predict_x0"),
    ({NAME: "EDMEulerScheduler", "prediction_type": "v_prediction"}, "prediction_type"),
    (EDM | {"rho": 0}, "rho"),
    (STABLE_DIFFUSION_XL | {"beta_start": "small"}, "beta_start"),
    (STABLE_DIFFUSION_XL | {"num_train_timesteps": 99.5}, "num_train_timesteps"),
    (STABLE_DIFFUSION_3 | {"shift": -1.0}, "shift"),
    (STABLE_DIFFUSION_3 | {"use_dynamic_shifting": True}, "use_dynamic_shifting"),
    (STABLE_DIFFUSION_3 | {"stochastic_sampling": True}, "stochastic_sampling"),
]

WARNED = [
    ({NAME: "DDIMScheduler", "timestep_spacing": "trailing"}, "clip_sample"),
    ({NAME: "DDIMScheduler", "clip_sample": False}, "leading"),
    ({NAME: "UniPCMultistepScheduler", "thresholding": True}, "thresholding"),
    ({NAME: "UniPCMultistepScheduler", "final_sigmas_type": "sigma_min"}, "last step"),
    ({NAME: "DPMSolverMultistepScheduler", "solver_order": 3}, "third-order"),
]


class TestConversion:
    @pytest.mark.parametrize(("config", "expected"), CONVERTED)
    def test_a_config_becomes(self, config, expected):
        converted = from_diffusers(config)
        assert tuple(converted) == expected
        z = noise_like(3, 1).float()
        denoiser = Denoiser(torch.nn.Identity(), converted.path, converted.target)
        denoiser.network.forward = lambda x, t: 0 * x
        options = {
            "sampler": converted.sampler,
            "grid": converted.grid,
            "steps": 4,
            "draws": Draws.first(3, 0),
            "start": z,
        }
        assert len(list(trajectory(denoiser, (1,), **options))) == 5  # everything in it is understood

    @pytest.mark.parametrize(("config", "key"), REFUSED)
    def test_what_has_no_counterpart_is_named(self, config, key):
        with pytest.raises(InputError, match=key):
            from_diffusers(config)

    @pytest.mark.parametrize(("config", "what"), WARNED)
    def test_what_is_left_out_is_warned_of(self, config, what):
        with pytest.warns(UserWarning, match=what):
            from_diffusers(config)

    @pytest.mark.parametrize("config", [EDM, STABLE_DIFFUSION_3, {NAME: "EulerDiscreteScheduler"}])
    def test_a_plain_config_is_converted_in_silence(self, config):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            from_diffusers(config)

    @pytest.mark.parametrize("steps", [0, 1001, 10.0, "10"])
    def test_steps_beyond_the_table(self, steps):
        with pytest.raises(InputError, match=r"steps must be .*at least 1 and at most 1000"):
            from_diffusers({NAME: "EulerDiscreteScheduler"}, steps)

    @pytest.mark.parametrize(
        ("config", "closeness"),
        [
            ({NAME: "EulerDiscreteScheduler", "use_karras_sigmas": True}, 1e-9),
            ({NAME: "DPMSolverMultistepScheduler", "use_lu_lambdas": True}, 1e-9),
            (EDM, 1e-9),
            ({NAME: "DDIMScheduler", "timestep_spacing": "trailing"}, 1e-9),
            ({NAME: "DPMSolverMultistepScheduler"}, 0.0015),  # whole timesteps, and the last is 1/N
            ({NAME: "UniPCMultistepScheduler", "flow_shift": 3.0, **FLOW}, 0.002),
        ],
    )
    def test_the_named_grid_is_the_scheduler_s(self, config, closeness):
        path, grid, _, _ = from_diffusers(config)
        listed = float64(*from_diffusers(config, 10).grid)
        assert float((grid_times(grid, 10, path) - listed).abs().max()) <= closeness

    @pytest.mark.parametrize(
        "name",
        ["EulerDiscreteScheduler", "UniPCMultistepScheduler", "EDMEulerScheduler", "FlowMatchHeunDiscreteScheduler"],
    )
    def test_from_a_config_alone_to_the_same_samples(self, name):
        scheduler = make(name)
        walked = walk(scheduler, three_modes(path_of(scheduler)), noise_like(8, 2), 10)
        converted = from_diffusers(scheduler, 10)
        steps = trajectory(
            three_modes(converted.path), (2,), draws=Draws.first(8, 0), start=walked.states[0],
            sampler=converted.sampler, grid=converted.grid,
        )  # fmt: skip
        assert difference(walked, [x for _, x in steps]) < 1e-3  # their ᾱ is a product in float32

    def test_it_does_not_import_diffusers(self):
        names = vars(importlib.import_module("ebbtide.interop.diffusers")).values()
        assert not any(getattr(value, "__name__", "") == "diffusers" for value in names)
