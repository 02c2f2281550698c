"""LeRobot's diffusion policies: their network, their scaling, their chunks.

The numbers of EXPECTED came from LeRobot 0.4.4's own classes, with the weights of `filled`; where it is installed,
`test_the_numbers_are_those_of_lerobots_own_classes` computes them again.
"""

import json

import pytest
import torch
from safetensors.torch import save_file

from ebbtide.core.denoiser import Denoiser
from ebbtide.core.paths import Linear
from ebbtide.core.randomness import Draws
from ebbtide.errors import InputError
from ebbtide.interop.lerobot import load_policy
from ebbtide.interop.lerobot.policies import FromOldest, from_lerobot, to_lerobot
from ebbtide.inverse.chunking import Previous
from ebbtide.networks.action_film import ActionFiLMUNet
from ebbtide.robots.chunks import DenoiserChunks
from ebbtide.robots.policy import Policy
from lerobots import import_lerobot

STATE, WORLD = "observation.state", "observation.environment_state"
CONFIG = {
    "type": "diffusion",
    "n_obs_steps": 2,
    "horizon": 8,
    "n_action_steps": 4,
    "input_features": {STATE: {"type": "STATE", "shape": [3]}, WORLD: {"type": "ENV", "shape": [2]}},
    "output_features": {"action": {"type": "ACTION", "shape": [2]}},
    "device": "cpu",
    "normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ENV": "MEAN_STD", "ACTION": "MIN_MAX"},
    "down_dims": [8, 16],
    "kernel_size": 3,
    "n_groups": 4,
    "diffusion_step_embed_dim": 8,
    "use_film_scale_modulation": True,
    "noise_scheduler_type": "DDIM",
    "num_train_timesteps": 10,
    "num_inference_steps": None,
    "beta_schedule": "squaredcos_cap_v2",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "prediction_type": "sample",
    "clip_sample": False,
    "clip_sample_range": 1.0,
}
STATS = {  # the last joint never moved
    f"{STATE}.min": [0.0, 1.0, 2.0], f"{STATE}.max": [4.0, 5.0, 2.0],
    f"{WORLD}.mean": [1.0, -1.0], f"{WORLD}.std": [2.0, 0.5],
    "action.min": [-2.0, 0.0], "action.max": [2.0, 10.0],
}  # fmt: skip
NETWORK = {"widths": "8-16", "kernel": 3, "groups": 4, "emb": 8, "timesteps": 10}
SEEN = {STATE: torch.tensor([[1.0, 2.0, 2.0]]), WORLD: torch.tensor([[0.5, -0.5]])}


def filled(shapes):
    """Weights that are the same anywhere: waves over their places, in the order of their names."""
    made = {}
    for k, name in enumerate(sorted(shapes)):
        size = torch.Size(shapes[name]).numel()
        wave = torch.sin(0.7 * torch.arange(size, dtype=torch.float64) ** 1.1 + k)
        centre = 1.0 if name.endswith("block.1.weight") else 0.0  # of a norm
        made[name] = (centre + 0.3 * wave).float().reshape(shapes[name])
    return made


def noise(*shape):
    return (
        torch.sin(1.3 * torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + 0.4).float().reshape(shape) * 1.4
    )


def shapes_of(**options):
    network = ActionFiLMUNet(8, 2, observation={"state": (2, 5)}, **NETWORK, **options)
    return {name: part.shape for name, part in to_lerobot(network).items()}


def folder_of(where, old=False, stats=STATS, **changes):
    """A policy's folder as LeRobot writes it; old: as it once did, with the statistics among the weights."""
    where.mkdir()
    (where / "config.json").write_text(json.dumps(CONFIG | changes))
    weights = {f"diffusion.unet.{name}": part for name, part in filled(shapes_of()).items()}
    numbers = {name: torch.tensor(values) for name, values in stats.items()}
    if old:
        for name, part in numbers.items():
            key, kind = name.rsplit(".", 1)
            which = "unnormalize_outputs" if key == "action" else "normalize_inputs"
            weights[f"{which}.buffer_{key.replace('.', '_')}.{kind}"] = part
    else:
        save_file(numbers, where / "policy_preprocessor_step_3_normalizer_processor.safetensors")
        save_file(numbers, where / "policy_postprocessor_step_0_unnormalizer_processor.safetensors")
    save_file(weights, where / "model.safetensors")
    return where


EXPECTED = {
    "network": [
        [[-0.5490133, -0.8071446], [-0.2741591, -0.3614304], [-0.8265579, -0.8357329]],
        [[-0.6608666, -0.4162304], [-0.5020033, -0.7984443], [-0.2870752, -0.4205025]],
    ],
    "shifted": [
        [[-0.454846, -0.4143855], [-0.1200024, -0.4250847], [-0.6138043, -0.4925686]],
        [[-0.09771761, -0.4148091], [-0.6780893, -0.6664585], [-0.6991832, -0.5276755]],
    ],
    "chunk": [[-1.514773, 1.325131], [-0.8025597, 1.751536], [-0.6258986, 3.17687], [-1.101584, 2.257025]],
}


def near(found, expected):
    expected = torch.tensor(expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("scales", [True, False])
def test_the_network_is_theirs(scales):
    network = ActionFiLMUNet(8, 2, observation={"state": (2, 5)}, scales=scales, **NETWORK)
    theirs = filled({name: part.shape for name, part in to_lerobot(network).items()})
    network.load_state_dict(from_lerobot(theirs))
    back = to_lerobot(network)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], part) for name, part in theirs.items())
    with torch.no_grad():
        y = network(noise(2, 8, 2), torch.tensor([0.1, 0.8]), state=noise(2, 2, 5))
    near(y[:, ::3], EXPECTED["network" if scales else "shifted"])


@pytest.mark.parametrize("old", [False, True])
def test_a_stored_policy_acts_as_theirs(tmp_path, old):
    """From the same noise, through both scalings, from the action for the current step on."""
    source = load_policy(folder_of(tmp_path / "policy", old=old))
    assert source.shape == (7, 2)
    assert (source.n_obs_steps, source.n_action_steps) == (2, 4)
    state = torch.cat(list(SEEN.values()), 1)[:, None].expand(1, 2, 5)
    chunk = source.sample_chunks({"state": state}, draws=Draws.first(1, 0), noise=noise(1, 8, 2))
    near(chunk[0, :4], EXPECTED["chunk"])


def test_any_sampler_runs_on_it_in_the_control_loop(tmp_path):
    source = load_policy(folder_of(tmp_path / "policy"), sampler="dpmpp_2m", steps=5)
    assert (source.whole.sampler, source.whole.steps) == ("dpmpp_2m", 5)
    policy = Policy(source, delay=1, real_time=True)
    policy.reset()
    for step in range(9):
        action = policy.select_action({"state": torch.cat(list(SEEN.values()), 1)[0].numpy() + 0.1 * step})
        assert action.shape == (2,)


class Counting(DenoiserChunks):
    """Chunks 0, 1, 2, …; keeps the rest of the previous ones that it was handed."""

    def sample_chunks(self, observation, *, draws, previous=None, noise=None):
        object.__setattr__(self, "handed", previous)
        return torch.arange(8.0)[None, :, None].expand(1, 8, 2)


def test_the_rest_of_a_chunk_is_moved_to_its_place():
    """Of three observations the first action for now is the whole chunk's third, and what precedes it is free."""
    denoiser = Denoiser(ActionFiLMUNet(8, 2, observation={"state": (3, 5)}, **NETWORK), Linear())
    source = FromOldest(Counting(denoiser, (8, 2), {"state": (3, 5)}, n_obs_steps=3))
    left = Previous(torch.arange(6.0)[None, :, None].expand(1, 6, 2), torch.linspace(1, 0, 6)[None])
    seen = {"state": torch.zeros(1, 3, 5)}
    chunk = source.sample_chunks(seen, draws=Draws.first(1, 0), previous=left)
    assert chunk[0, :, 0].tolist() == [2, 3, 4, 5, 6, 7]
    assert source.whole.handed.actions[0, :, 0].tolist() == [0, 0, 0, 1, 2, 3, 4, 5]
    torch.testing.assert_close(source.whole.handed.weights[0], torch.tensor([0, 0, 1, 0.8, 0.6, 0.4, 0.2, 0]))


def test_ddpm_clips_as_theirs(tmp_path):
    source = load_policy(folder_of(tmp_path / "policy", noise_scheduler_type="DDPM", clip_sample=True))
    assert (source.whole.sampler, source.whole.bound) == ("ddpm", 1.0)
    state = torch.cat(list(SEEN.values()), 1)[:, None].expand(64, 2, 5)
    chunks = source.sample_chunks({"state": state}, draws=Draws.first(64, 0))
    low, high = torch.tensor(STATS["action.min"]), torch.tensor(STATS["action.max"])
    assert bool(((chunks > low - 1e-4) & (chunks < high + 1e-4)).all())


def test_what_cannot_be_is_one_sentence(tmp_path):
    image = {"observation.image": {"type": "VISUAL", "shape": [3, 96, 96]}}
    for number, (changes, named) in enumerate([
        ({"type": "act"}, "type diffusion; got 'act'"),
        ({"input_features": CONFIG["input_features"] | image}, "sees observation.image"),
        ({"kernel_size": 5}, "size mismatch"),
        ({"n_groups": "x"}, "n_groups|groups"),
        ({"stats": {}}, "no statistics"),
    ]):  # fmt: skip
        with pytest.raises(InputError, match=named) as refused:
            load_policy(folder_of(tmp_path / str(number), **changes))
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="is no folder"):
        load_policy(tmp_path / "nowhere/at/all")


def test_the_numbers_are_those_of_lerobots_own_classes(tmp_path):
    import_lerobot("the numbers of its diffusion policy")
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionConditionalUnet1d, DiffusionPolicy
    from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors

    folder = folder_of(tmp_path / "policy")
    policy = DiffusionPolicy.from_pretrained(folder, strict=True)
    assert isinstance(policy.config, DiffusionConfig)
    found = {}
    for name, scales in {"network": True, "shifted": False}.items():
        policy.config.use_film_scale_modulation = scales
        network = DiffusionConditionalUnet1d(policy.config, 10)
        network.load_state_dict(filled({name: part.shape for name, part in network.state_dict().items()}))
        with torch.no_grad():
            found[name] = network(noise(2, 8, 2), torch.tensor([0, 7]), noise(2, 2, 5).flatten(1))[:, ::3]
    stats = {}
    for name, values in STATS.items():
        key, kind = name.rsplit(".", 1)
        stats.setdefault(key, {})[kind] = torch.tensor(values)
    before, after = make_diffusion_pre_post_processors(policy.config, stats)
    actions = [after(policy.select_action(before(dict(SEEN)), noise=noise(1, 8, 2))) for _ in range(4)]
    found["chunk"] = torch.cat(actions)
    for name, part in found.items():
        print(name, part.tolist())
    for name, part in found.items():
        near(part, EXPECTED[name])
