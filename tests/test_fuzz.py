"""Whatever a spec, config, checkpoint, log, scheduler or data file holds, it is read or refused in one sentence.

Seeded: each case is (seed, number), which a failure names.
"""

import copy
import gzip
import io
import json
import random
import traceback
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from ebbtide.core.couplings import COUPLINGS
from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import PATHS, Linear
from ebbtide.core.randomness import Draws
from ebbtide.core.targets import TARGETS
from ebbtide.core.times import GRIDS, TIMES, grid_times
from ebbtide.data import images, load
from ebbtide.errors import EbbtideError, InputError
from ebbtide.interop.diffusers import from_diffusers
from ebbtide.interop.schedulers import SCHEDULERS
from ebbtide.losses.denoise import WEIGHTS
from ebbtide.networks import NETWORKS
from ebbtide.recipes import RECIPES, recipe_from_config
from ebbtide.samplers import SAMPLERS, sample
from ebbtide.specs import bind, options
from ebbtide.training.build import build_denoiser, build_network
from ebbtide.training.history import evolution, read_metrics
from ebbtide.training.trained import Trained

pytestmark = pytest.mark.slow
ODD = [
    None, True, False, 0, 1, -1, 2, 3, 17, 0.5, 1e-300, 1e308, -1e308, 10**30, 10**400, float("nan"), float("inf"),
    -float("inf"), "", "x", "linear", "1e999", "é\x00\x1b[31m", "9" * 400, [], [1], [[1.0]], [None], ["a"], [1e308],
    {}, {"a": 1}, {"name": "standardise"},
]  # fmt: skip


def trial(seed, count, case):
    """case(rng) count times: how many came to an end; whatever else is raised than a refusal fails."""
    done, broken, first = 0, Counter(), {}
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                case(rng)
                done += 1
            except EbbtideError:
                pass
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                sign = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
                broken[sign] += 1
                first.setdefault(sign, f"({seed!r}, {number}): {str(error)[:200]}")
    assert not broken, "\n".join(f"{n} × {sign}, first {first[sign]}" for sign, n in broken.most_common())
    return done


def mutated(rng, config):
    """A copy of JSON with up to three values replaced, left out, added or moved."""
    config = copy.deepcopy(config)
    for _ in range(rng.randint(1, 3)):
        inside = [config]
        while (choices := list(_items(inside[-1]))) and (len(inside) == 1 or rng.random() < 0.7):
            inside.append(rng.choice(choices))
        holder = next((one for one in reversed(inside) if isinstance(one, dict | list) and len(one)), None)
        if holder is None:
            continue
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        kind = rng.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(["x", "steps", "", key])] = rng.choice(ODD)
        elif kind == 2 and type(holder[key]) in (int, float):
            holder[key] = holder[key] * rng.choice([-1, 0, 2, 10]) if abs(holder[key]) < 1e300 else 0
        else:
            holder[key] = copy.deepcopy(rng.choice(ODD))
    return config


def _items(value):
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def damaged(rng, data):
    """Bytes with a few of them changed, cut out, doubled or put in."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(data) + 1), rng.randint(1, 8)
        kind = rng.randrange(5)
        if kind == 0:
            data[at : at + length] = rng.randbytes(length)
        elif kind == 1:
            del data[at : at + length * 8]
        elif kind == 2:
            data[at:at] = data[at : at + length * 8]
        elif kind == 3:
            data[at:at] = rng.choice([b"nan", b"-", b"1e999", b",", b"\n", b'"', b"\x00", "é".encode(), b"\xff", b"{}"])
        else:
            del data[at:]
    return bytes(data)


# --- specs ------------------------------------------------------------------------------------------------------------

WORDS = [
    "0", "1", "-1", "2", "3", "0.5", "1e-300", "1e308", "-1e308", "nan", "inf", "true", "false", "", "x", "log_snr",
    "flow", "linear", "1-2", "9" * 400, "1e-8", "100", "0-0-0", "-", "1,2", "σ", "²",
]  # fmt: skip


def spec(rng, table):
    """A row with some of its options, given a word each; now and then one that doesn't exist."""
    name = rng.choice([*table]) if rng.random() < 0.97 else rng.choice(WORDS)
    row = table.get(name)
    known = list(options(row)) if row is not None else []
    given = [f"{rng.choice([*known, *known, 'x'])}={rng.choice(WORDS)}" for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    return name + rng.choice([":", ":", ":", "", "::"]) + rng.choice([",", ",", ",,", ";"]).join(given)


def exact(path, target="x0"):
    """A real Denoiser of N(0, 1) data on the path; exact for the target x0."""

    class Network(torch.nn.Module):
        def forward(self, x, t, **cond):
            c = path.at(t, x)
            return c.alpha * x / (c.alpha**2 + c.sigma**2)

    return Denoiser(Network(), path, target)


def use(rng, what):
    if what == "path":
        path = bind(PATHS, spec(rng, PATHS), "path")()
        path.along([1.0, 0.5, 0.01])
        grid_times("log_snr", 3, path)
        path.prior(torch.randn(4, 2))
    elif what == "grid":
        path = PATHS[rng.choice(["linear", "cosine", "ddpm", "vp", "ve"])]()
        grid_times(
            spec(rng, GRIDS) if rng.random() < 0.8 else ",".join(rng.choices(WORDS, k=3)), rng.randint(1, 9), path
        )
    elif what == "times":
        bind(TIMES, spec(rng, TIMES), "times")(torch.rand(5), Linear())
    elif what == "weight":
        weights = bind(WEIGHTS, spec(rng, WEIGHTS), "weight")(Linear().at(torch.full((2,), 0.5), torch.zeros(2, 1)))
        assert weights is None or weights.shape == (2, 1)  # None: the target's own error
    elif what == "target":
        exact(Linear(), spec(rng, TARGETS))(torch.randn(2, 1), 0.5)
    elif what == "coupling":
        bind(COUPLINGS, spec(rng, COUPLINGS), "coupling")(torch.randn(4, 2), torch.randn(4, 2))
    elif what == "network":
        domain_, shape = rng.choice([("flow", (2,)), ("flow-images", (1, 8, 8))])
        rows = {name: NETWORKS[name] for name in (("mlp",) if shape == (2,) else ("unet-tiny", "dit-tiny"))}
        build_network(replace(RECIPES[domain_](), network=spec(rng, rows)), shape, 2, outline=True)
    else:
        path = PATHS[rng.choice(["linear", "cosine", "ddpm", "ve"])]()
        sample(exact(path), (2,), draws=Draws.first(2, 0), sampler=spec(rng, SAMPLERS), steps=2, grid="log_snr")


@pytest.mark.parametrize(
    ("what", "count"),
    [
        ("path", 800), ("grid", 1000), ("times", 400), ("weight", 300), ("target", 300), ("coupling", 200),
        ("network", 200), ("sampler", 800),
    ],
)  # fmt: skip
def test_specs(what, count):
    trial(what, count, lambda rng: use(rng, what))


# --- configs, checkpoints, logs ---------------------------------------------------------------------------------------


def test_recipes():
    configs = [row().to_config() for row in RECIPES.values()]
    trial("recipes", 1500, lambda rng: recipe_from_config(mutated(rng, rng.choice(configs))))


@pytest.fixture(scope="module")
def files():
    recipe = replace(RECIPES["flow"](), network="mlp:width=8,depth=1", conditional=True, data="two_moons")
    trained = Trained(build_denoiser(recipe, (2,), 2), recipe, (2,), classes=("a", "b"), frequencies=(0.5, 0.5))
    return trained.files() | {"model.safetensors": save(trained.denoiser.state_dict())}


def test_checkpoints(files):
    """What loads also draws."""

    def case(rng):
        changed = dict(files)
        name = rng.choice(list(files))
        if name == "config.json" and rng.random() < 0.8:
            changed[name] = json.dumps(mutated(rng, json.loads(files[name]))).encode()
        else:
            changed[name] = damaged(rng, files[name])
        Trained.from_files(changed, "a folder").sample(2, steps=1, label=0)

    assert trial("checkpoints", 1500, case) > 10


def test_logs(tmp_path):
    """What `plot` and `compare` read of a run folder: its log and its snapshots."""
    line = {"step": 5, "loss": 0.5, "grad_norm": 1.0, "lr": 0.001, "examples_per_second": 10.0, "cpu_seconds": 1.0}
    (tmp_path / "evolution").mkdir()
    array = io.BytesIO()
    np.save(array, np.zeros((5, 2), dtype=np.float32))

    def case(rng):
        lines = [json.dumps(mutated(rng, line) if rng.random() < 0.5 else line | {"step": k}) for k in range(1, 4)]
        log = "\n".join(lines).encode()
        (tmp_path / "metrics.jsonl").write_bytes(damaged(rng, log) if rng.random() < 0.3 else log)
        snapshot = tmp_path / "evolution" / f"step-{rng.choice(['00000001', '00000001', '00000001', 'x', '', '²'])}.npy"
        snapshot.write_bytes(damaged(rng, array.getvalue()) if rng.random() < 0.5 else array.getvalue())
        try:
            lines = [line for line in read_metrics(tmp_path) if line["loss"] is not None]
            assert np.array([line["loss"] for line in lines]).dtype.kind in "if"
            assert np.array([[line["step"], line["cpu_seconds"], line["lr"]] for line in lines]).dtype.kind in "if"
            assert all(type(step) is int and x.shape[1:] == (2,) for step, x in evolution(tmp_path, (2,)))
        finally:
            snapshot.unlink()

    trial("logs", 1500, case)


# --- diffusers' configs -----------------------------------------------------------------------------------------------

WRITTEN = {
    "num_train_timesteps": 100, "beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.02,
    "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1, "clip_sample": False,
    "set_alpha_to_one": False, "use_karras_sigmas": True, "rho": 7.0, "final_sigmas_type": "zero",
    "variance_type": "fixed_small", "solver_order": 2, "order": 3, "eta": 0.5, "solver_type": "midpoint",
    "algorithm_type": "dpmsolver++", "shift": 3.0, "flow_shift": 3.0, "use_flow_sigmas": False,
    "rescale_betas_zero_snr": False, "sigma_min": 0.01, "sigma_max": 50.0, "sigma_data": 0.5,
    "sigma_schedule": "karras", "use_exponential_sigmas": False, "use_lu_lambdas": False, "thresholding": False,
    "disable_corrector": [], "trained_betas": [0.001] * 100, "lambda_min_clipped": -20, "_diffusers_version": "0.42",
}  # fmt: skip
LIKELY = ["epsilon", "v_prediction", "sample", "flow_prediction", "linear", "squaredcos_cap_v2", "trailing", "linspace",
          "bh1", "bh2", "heun", "midpoint", "fixed_large", "dpmsolver", "sde-dpmsolver++", "exponential"]  # fmt: skip


def test_schedulers():
    """What converts also samples."""

    def case(rng):
        config = {key: WRITTEN[key] for key in WRITTEN if rng.random() < 0.25}
        for key in rng.sample(list(WRITTEN), rng.randint(0, 2)):
            config[key] = rng.choice([*ODD, *LIKELY])
        config["_class_name"] = rng.choice([*SCHEDULERS]) if rng.random() < 0.98 else rng.choice(ODD)
        found = from_diffusers(config, rng.choice([None, None, 1, 5, 1000]))
        bind(SAMPLERS, found.sampler, "sampler")
        Denoiser(torch.nn.Identity(), found.path, found.target)
        times = grid_times(found.grid, 5, found.path)
        assert bool((times.diff() < 0).all())
        if rng.random() < 0.2:
            sample(exact(found.path), (2,), draws=Draws.first(2, 0), sampler=found.sampler, steps=5, grid=found.grid)

    assert trial("schedulers", 4000, case) > 400


# --- data files -------------------------------------------------------------------------------------------------------


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


PICTURES = np.arange(4 * 6 * 6, dtype=np.uint8).reshape(4, 6, 6)
TABLES = {
    "t.csv": b"a,b,kind\n" + b"".join(b"%d,%.1f,k%d\n" % (i, i / 3, i % 2) for i in range(12)),
    "t.tsv": b"\xef\xbb\xbfa\tb\n" + b"".join(b"%d\t%.1e\n" % (i, i / 3) for i in range(12)),
    "t.npy": _npy(np.eye(4)),
    "t.npz": _npz(x=np.random.default_rng(0).normal(size=(9, 2)), labels=np.array(list("abcabcabc"))),
}
IMAGES = {
    "p.npz": _npz(images=PICTURES, labels=np.array([0, 1, 0, 1])),
    "train-images-idx3-ubyte": _idx(PICTURES),
    "train-images-idx3-ubyte.gz": gzip.compress(_idx(PICTURES), mtime=0),
}


def test_tables(tmp_path):
    def case(rng):
        name = rng.choice(list(TABLES))
        (tmp_path / name).write_bytes(damaged(rng, TABLES[name]))
        points = load(str(tmp_path / name), 100, 0, rng.choice([None, None, "kind", "1", "labels"]))
        assert not points.x.isinf().any()
        assert name.endswith("sv") or not points.x.isnan().any()  # which only an empty cell of a text is

    assert trial("tables", 1500, case) > 20


def test_pictures(tmp_path):
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(_idx(np.array([0, 1, 0, 1], dtype=np.uint8)))

    def case(rng):
        name = rng.choice(list(IMAGES))
        (tmp_path / name).write_bytes(damaged(rng, IMAGES[name]))
        found = images.load_images(str(tmp_path / name))
        assert found.x.dtype == torch.uint8

    assert trial("pictures", 800, case) > 10


def test_a_trial_finds_what_is_not_a_refusal():
    with pytest.raises(AssertionError, match="ZeroDivisionError at test_fuzz"):
        trial("self", 3, lambda rng: 1 / 0)

    def refuse(rng):
        raise InputError("No.")

    assert trial("self", 3, refuse) == 0
