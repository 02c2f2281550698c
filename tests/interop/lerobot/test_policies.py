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
from ebbtide.interop.lerobot.vision import image_scaling
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

# The policies that see images: two cameras beside both states.
TOP, WRIST = "observation.images.top", "observation.images.wrist"
IMAGES = {key: {"type": "VISUAL", "shape": [3, 40, 48]} for key in (TOP, WRIST)}
SEES = {
    "input_features": {STATE: CONFIG["input_features"][STATE], **IMAGES, WORLD: CONFIG["input_features"][WORLD]},
    "vision_backbone": "resnet18",
    "resize_shape": None,
    "crop_ratio": 1.0,
    "crop_shape": [35, 36],
    "crop_is_random": True,
    "pretrained_backbone_weights": None,
    "use_group_norm": True,
    "spatial_softmax_num_keypoints": 4,
    "use_separate_rgb_encoder_per_camera": False,
}
VISION = {
    "crop": {},
    "resnet34, each camera, resized": {
        "vision_backbone": "resnet34", "use_separate_rgb_encoder_per_camera": True, "resize_shape": [50, 40],
        "crop_ratio": 0.9,
    },
    "batch norm": {"use_group_norm": False, "crop_shape": None},
}  # fmt: skip
IMAGE_STATS = {
    f"{TOP}.mean": [[[0.4]], [[0.5]], [[0.6]]], f"{TOP}.std": [[[0.2]], [[0.25]], [[0.3]]],
    f"{WRIST}.mean": [[[0.1]], [[0.2]], [[0.3]]], f"{WRIST}.std": [[[0.5]], [[0.4]], [[0.1]]],
}  # fmt: skip


def filled(shapes):
    """Weights that are the same anywhere: waves over their places, in the order of their names."""
    made = {}
    for k, name in enumerate(sorted(shapes)):
        size = torch.Size(shapes[name]).numel()
        wave = torch.sin(0.7 * torch.arange(size, dtype=torch.float64) ** 1.1 + k)
        norm = name.endswith(("block.1.weight", "running_var")) or ("backbone" in name and len(shapes[name]) == 1)
        centre = 1.0 if norm and not name.endswith(("bias", "running_mean")) else 0.0
        scale = (3 / torch.Size(shapes[name][1:]).numel()) ** 0.5 if "rgb_encoder" in name and not norm else 0.3
        made[name] = (centre + scale * wave).float().reshape(shapes[name])
    return made


def encoder_shapes(config):
    """Shapes of LeRobot's encoders of images by name: a ResNet's of torchvision, of whose children it makes a list."""
    norms = ["weight", "bias"] + ["running_mean", "running_var"] * (not config["use_group_norm"])
    depths, k = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}[config["vision_backbone"]], 4
    one = {"0.weight": (64, 3, 7, 7)} | {f"1.{kind}": (64,) for kind in norms}
    for stage, (depth, out) in enumerate(zip(depths, (64, 128, 256, 512), strict=True)):
        for block in range(depth):
            into = 64 if stage == 0 else out // 2 if block == 0 else out
            at = f"{stage + 4}.{block}."
            one |= {f"{at}conv1.weight": (out, into, 3, 3), f"{at}conv2.weight": (out, out, 3, 3)}
            one |= {f"{at}bn{i}.{kind}": (out,) for i in (1, 2) for kind in norms}
            if into != out:
                one |= {f"{at}downsample.0.weight": (out, into, 1, 1)}
                one |= {f"{at}downsample.1.{kind}": (out,) for kind in norms}
    one = {f"backbone.{name}": shape for name, shape in one.items()}
    one |= {"pool.nets.weight": (k, 512, 1, 1), "pool.nets.bias": (k,)}
    one |= {"out.weight": (2 * k, 2 * k), "out.bias": (2 * k,)}
    prefixes = ("0.", "1.") if config["use_separate_rgb_encoder_per_camera"] else ("",)
    return {f"rgb_encoder.{prefix}{name}": shape for prefix in prefixes for name, shape in one.items()}


def vision_weights(config):
    """Those of the encoders and of the U-Net, under LeRobot's names; places of the cells, column by column, by hand."""
    seen = {"state": (2, 5 + 2 * 8)}
    unet = to_lerobot(ActionFiLMUNet(8, 2, observation=seen, **NETWORK))
    made = {f"diffusion.unet.{name}": part for name, part in filled({n: p.shape for n, p in unet.items()}).items()}
    for name, part in filled(encoder_shapes(config)).items():
        made[f"diffusion.{name}"] = part
        if name.endswith("running_mean") and "backbone" in name:
            made[f"diffusion.{name.replace('running_mean', 'num_batches_tracked')}"] = torch.tensor(7)
        if name.endswith("pool.nets.bias"):
            grid = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]])
            made[f"diffusion.{name.replace('nets.bias', 'pos_grid')}"] = grid
    return made


def pictures(steps=1):
    """Images of both cameras at each step, (steps, 2, 40, 48, 3): a bright patch that moves, on a wave."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(48.0), indexing="ij")
    made = torch.zeros(steps, 2, 40, 48, 3)
    for step in range(steps):
        for camera in range(2):
            wave = 90 + 40 * torch.sin(0.3 * x + 0.2 * y * (camera + 1))
            patch = 120 * torch.exp(-((x - 12 - 9 * step) ** 2 + (y - 20 + 8 * camera) ** 2) / 40)
            made[step, camera] = torch.stack([wave, patch, (wave + patch) / 2], 2)
    return made.round().byte()


def noise(*shape):
    return (
        torch.sin(1.3 * torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + 0.4).float().reshape(shape) * 1.4
    )


def shapes_of(**options):
    network = ActionFiLMUNet(8, 2, observation={"state": (2, 5)}, **NETWORK, **options)
    return {name: part.shape for name, part in to_lerobot(network).items()}


def folder_of(where, old=False, stats=STATS, weights=None, **changes):
    """A policy's folder as LeRobot writes it; old: as it once did, with the statistics among the weights."""
    where.mkdir()
    (where / "config.json").write_text(json.dumps(CONFIG | changes))
    if weights is None:
        weights = {f"diffusion.unet.{name}": part for name, part in filled(shapes_of()).items()}
    weights = dict(weights)
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
    "crop": [[0.4946318, 4.140324], [-0.9259379, 1.699554], [-1.862771, 2.254334], [-1.919826, 2.601262]],
    "resnet34, each camera, resized": [
        [-2.203398, 1.102772],
        [-2.117255, 0.6570441],
        [-1.028033, 2.428807],
        [-0.9125665, 3.514614],
    ],
    "batch norm": [[-1.95454, 0.1801413], [-0.5584199, -1.097048], [-0.4380673, 3.491257], [-1.182153, 3.297112]],
}


def seeing_folder(where, case, old=False, stats=STATS | IMAGE_STATS, **changes):
    config = CONFIG | SEES | VISION[case]
    weights = vision_weights(config)
    return folder_of(where, old, stats=stats, weights=weights, **SEES | VISION[case] | changes)


def near(found, expected, most=1e-5):
    expected = torch.tensor(expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=most * float(expected.abs().max()))


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


@pytest.mark.parametrize("case", VISION)
def test_a_policy_that_sees_images_acts_as_theirs(tmp_path, case):
    """From two steps with different images, in float32 through a ResNet."""
    source = load_policy(seeing_folder(tmp_path / "policy", case, old=case == "crop"))
    assert source.observation == {"state": (2, 5), "images": (4, 40, 48, 3)}
    state = torch.cat(list(SEEN.values()), 1)[:, None].expand(1, 2, 5)
    images = pictures(2).flatten(0, 1)[None]
    chunk = source.sample_chunks({"state": state, "images": images}, draws=Draws.first(1, 0), noise=noise(1, 8, 2))
    near(chunk[0, :4], EXPECTED[case], 1e-4)
    for i in range(4):  # of step and camera: each is seen
        other = images.clone()
        other[:, i] = 255 - other[:, i]
        changed = source.sample_chunks({"state": state, "images": other}, draws=Draws.first(1, 0), noise=noise(1, 8, 2))
        assert float((changed - chunk).abs().max()) > 1e-2


def test_images_are_scaled_by_each_camera_s_statistics():
    """By hand: a pixel of 0.5 with mean 0.4 and std 0.2 is 0.5; in a range from 0.25 to 0.75 it is 0."""
    stats = [
        {"mean": torch.full((3, 1, 1), 0.4), "std": torch.full((3, 1, 1), 0.2), "min": torch.tensor([0.25] * 3),
         "max": torch.tensor([0.75] * 3)},
        {"mean": torch.zeros(3), "std": torch.ones(3), "min": torch.tensor([0.0] * 3), "max": torch.tensor([1.0] * 3)},
    ]  # fmt: skip
    expected = {"MEAN_STD": [0.5, 0.5], "MIN_MAX": [0.0, 0.0], "IDENTITY": [0.5, 0.5]}
    for mode, values in expected.items():
        made = image_scaling(mode, stats, 2)
        assert made["mean"].shape == made["std"].shape == (4, 3)
        scaled = (0.5 - made["mean"]) / made["std"]
        torch.testing.assert_close(scaled, torch.tensor(values).repeat(2)[:, None].expand(4, 3))
    low = (0.0 - image_scaling("MIN_MAX", stats, 1)["mean"]) / image_scaling("MIN_MAX", stats, 1)["std"]
    torch.testing.assert_close(low[:, 0], torch.tensor([-2.0, -1.0]))
    black = [{name: torch.zeros(3) for name in ("mean", "std", "min", "max")}]  # as theirs: 0 / 1e-8, and -1
    for mode, value in {"MEAN_STD": 0.0, "MIN_MAX": -1.0}.items():
        made = image_scaling(mode, black, 1)
        assert ((0.0 - made["mean"]) / made["std"]).tolist() == [[value] * 3]


def test_any_sampler_runs_on_it_in_the_control_loop(tmp_path):
    source = load_policy(folder_of(tmp_path / "policy"), sampler="dpmpp_2m", steps=5)
    assert (source.whole.sampler, source.whole.steps) == ("dpmpp_2m", 5)
    policy = Policy(source, delay=1, real_time=True)
    policy.reset()
    for step in range(9):
        action = policy.select_action({"state": torch.cat(list(SEEN.values()), 1)[0].numpy() + 0.1 * step})
        assert action.shape == (2,)
    config = CONFIG | SEES
    compiled = {name.replace("unet.", "unet._orig_mod."): part for name, part in vision_weights(config).items()}
    folder = folder_of(tmp_path / "seeing", stats=STATS | IMAGE_STATS, weights=compiled, **SEES)
    policy = Policy(load_policy(folder, sampler="dpmpp_2m", steps=5))
    state = torch.cat(list(SEEN.values()), 1)[0].numpy()
    action = policy.select_action({"state": state, "images": pictures()[0].numpy()})
    assert action.shape == (2,)
    with pytest.raises(InputError, match="needs images"):
        policy.select_action({"state": state})


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


def test_a_batch_norm_that_is_not_whole_is_named(tmp_path):
    whole = vision_weights(CONFIG | SEES | VISION["batch norm"])
    encoder = "diffusion.rgb_encoder.backbone.5.0."
    for number, (weights, named) in enumerate([
        ({name: part for name, part in whole.items() if name != f"{encoder}bn1.running_var"}, "bn1.running_var is"),
        ({name: part for name, part in whole.items() if name != f"{encoder}conv2.weight"}, "conv2.weight is missing"),
        ({name.replace(".bn1.", ".first."): part for name, part in whole.items()}, "no convolution before .*first"),
    ]):  # fmt: skip
        folder = folder_of(
            tmp_path / str(number), stats=STATS | IMAGE_STATS, weights=weights, **SEES | VISION["batch norm"]
        )
        with pytest.raises(InputError, match=f"BatchNorms can't be folded .*{named}"):
            load_policy(folder)


def test_what_cannot_be_is_one_sentence(tmp_path):
    theirs = {f"diffusion.unet.{name}": part for name, part in filled(shapes_of()).items()}
    for number, (changes, named) in enumerate([
        ({"type": "act"}, "type diffusion; got 'act'"),
        ({"input_features": CONFIG["input_features"] | {"task": {"type": "LANGUAGE", "shape": [1]}}}, "sees task"),
        ({"input_features": CONFIG["input_features"] | IMAGES}, "config.json has no 'vision_backbone'"),
        ({"kernel_size": 5}, "size mismatch"),
        ({"n_groups": "x"}, "n_groups|groups"),
        ({"input_features": "none"}, "can't be used"),
        ({"stats": {}}, "no statistics"),
        ({"stats": STATS | {"action.min": [], "action.max": []}}, "action has 2 numbers; its folder's min of it has 0"),
        ({"stats": STATS | {f"{WORLD}.std": [1.0]}}, "environment_state has 2 numbers; its folder's std of it has 1"),
        ({"weights": {name: part.long() for name, part in theirs.items()}}, "must be floating-point numbers"),
        ({"weights": {name: part / 0 for name, part in theirs.items()}}, "holds numbers that are not finite"),
    ]):  # fmt: skip
        with pytest.raises(InputError, match=named) as refused:
            load_policy(folder_of(tmp_path / str(number), **changes))
        assert "\n" not in str(refused.value)
    depth = {TOP: {"type": "VISUAL", "shape": [1, 40, 48]}}
    other = IMAGES | {WRIST: {"type": "VISUAL", "shape": [3, 48, 40]}}
    states, folder = CONFIG["input_features"], seeing_folder(tmp_path / "seeing", "crop")
    for changes, named in (
        ({"vision_backbone": "resnet50"}, "must be resnet18 or resnet34 to be loaded; got 'resnet50'"),
        ({"vision_backbone": "resnet34"}, "Missing key"),
        ({"use_group_norm": False}, "Missing key"),
        ({"use_separate_rgb_encoder_per_camera": True}, "Missing key"),
        ({"spatial_softmax_num_keypoints": 5}, "size mismatch"),
        ({"crop_shape": [41, 40]}, "crop must be HEIGHT-WIDTH, at most 40-48"),
        ({"input_features": states | depth}, "of one shape, with three channels first"),
        ({"input_features": states | other}, "of one shape, with three channels first"),
        ({"normalization_mapping": CONFIG["normalization_mapping"] | {"VISUAL": "QUANTILE10"}}, "images by QUANTILE10"),
    ):
        (folder / "config.json").write_text(json.dumps(CONFIG | SEES | changes))
        with pytest.raises(InputError, match=named) as refused:
            load_policy(folder)
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="scales images by MEAN_STD, for which its folder has no statistics"):
        load_policy(seeing_folder(tmp_path / "unscaled", "crop", stats=STATS))
    with pytest.raises(InputError, match="is no folder"):
        load_policy(tmp_path / "nowhere/at/all")
    with pytest.raises(InputError, match="steps must be at least 1"):
        load_policy(folder_of(tmp_path / "whole"), steps=0)


@pytest.mark.unchecked
@pytest.mark.parametrize("where", [3, None, b"x"])
def test_what_names_no_folder_is_one_sentence(where):
    with pytest.raises(InputError, match=r"^a policy's folder must be a path"):
        load_policy(where)


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
    for number, case in enumerate(VISION):
        policy = DiffusionPolicy.from_pretrained(seeing_folder(tmp_path / f"seeing-{number}", case), strict=True)
        for name, values in IMAGE_STATS.items():
            key, kind = name.rsplit(".", 1)
            stats.setdefault(key, {})[kind] = torch.tensor(values)
        before, _ = make_diffusion_pre_post_processors(policy.config, stats)
        frames = pictures(2).permute(0, 1, 4, 2, 3) / 255
        steps = [before(SEEN | {TOP: frame[:1], WRIST: frame[1:]}) for frame in frames]
        batch = {key: torch.stack([step[key] for step in steps], 1) for key in (STATE, WORLD, TOP, WRIST)}
        batch["observation.images"] = torch.stack([batch[TOP], batch[WRIST]], 2)
        with torch.no_grad():
            found[case] = after(policy.diffusion.generate_actions(batch, noise=noise(1, 8, 2))[0])
    for name, part in found.items():
        print(name, part.tolist())
    for name, part in found.items():
        near(part, EXPECTED[name], 1e-4 if name in VISION else 1e-5)
