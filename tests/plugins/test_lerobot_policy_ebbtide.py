"""ebbtide's policies in LeRobot, by LeRobot's own calls: its registry, factories, evaluation and training.

Where LeRobot isn't installed they are skipped; `test_with_lerobot_itself` installs it in a folder and runs them.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ebbtide
from ebbtide.core.randomness import Draws
from ebbtide.data.episodes import prompt_bytes
from ebbtide.errors import InputError
from ebbtide.exact.tuned import Tuned
from lerobots import PACKAGES, import_lerobot

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "plugins" / "lerobot_policy_ebbtide"
BESIDE = [__file__, str(ROOT / "tests/interop/lerobot/test_policies.py")]  # what is tested beside LeRobot


@pytest.fixture(scope="module")
def lerobot():
    """The plugin, imported beside LeRobot; skips where that isn't installed."""
    import_lerobot("the plugin")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLUGIN / "src"))
        import lerobot_policy_ebbtide

        yield lerobot_policy_ebbtide


def recorded(folder, **more):
    """A recording of two episodes of a robot of three joints and two motors, seen by a camera."""
    draw = np.random.default_rng(0)
    state = draw.normal(size=(60, 3)).astype(np.float32).cumsum(0)
    frames = draw.integers(0, 256, (60, 24, 24, 3)).astype(np.uint8)
    np.savez(folder / "joints.npz", state=state, action=state[:, :2] * 3 + 1, episode_ends=[30, 60], top=frames,
             tasks=["go", "stay"], state_names=["x", "turn", "z"], **more)  # fmt: skip
    return str(folder / "joints.npz")


def trained(folder, name="run", **fields):
    """A run of a few steps: what it does depends on its weights, which is all that these tests need."""
    small = {"width": 8, "emb": 16, "tokens": 16, "channels": 16}
    network = "action_unet:" + ",".join(f"{key}={value}" for key, value in small.items())
    recipe = ebbtide.flow_policy(data=recorded(folder), steps=8, batch=8, lr=1e-2, horizon=8, n_action_steps=4,
                                 network=network, **fields)  # fmt: skip
    return ebbtide.fit(recipe, out=folder / name, overwrite=True)


@pytest.fixture(scope="module")
def run(lerobot, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("run"), n_obs_steps=2, cameras="top", prompt=8)


def batch_of(rows, seed=0, past=()):
    """What LeRobot gives a policy: tensors with the batch first, images of 0 to 1 with channels first, and tasks."""
    draw = torch.Generator().manual_seed(seed)
    frames = torch.randint(256, (rows, *past, 3, 24, 24), generator=draw)
    return {
        "observation.state": torch.randn(rows, *past, 3, generator=draw),
        "observation.images.top": frames.float() / 255,
        "task": ["go", "stay", "go", "stay"][:rows],
    }


def ours(batch, row):
    """The same as ebbtide's control loop takes it."""
    image = (255 * batch["observation.images.top"][row]).round().to(torch.uint8).permute(1, 2, 0)
    return {"state": batch["observation.state"][row].numpy(), "images": image[None].numpy(),
            "prompt": batch["task"][row]}  # fmt: skip


def test_lerobot_finds_the_policy_by_its_name(lerobot, run):
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    assert PreTrainedConfig.get_choice_class("ebbtide") is lerobot.EbbtideConfig
    assert get_policy_class("ebbtide") is lerobot.EbbtidePolicy
    assert make_policy_config("ebbtide", device="cpu", horizon=12).action_delta_indices == list(range(12))
    config = lerobot.EbbtidePolicy.from_run(run).config
    assert config.type == "ebbtide"
    assert config.observation_delta_indices == [-1, 0]
    assert {key: part.shape for key, part in config.input_features.items()} == {
        "observation.state": (3,), "observation.images.top": (3, 24, 24),
    }  # fmt: skip
    assert config.action_feature.shape == (2,)
    before, after = make_pre_post_processors(config, dataset_stats=None)
    one = {key: part[0] for key, part in batch_of(1).items() if key != "task"} | {"task": "go"}
    seen = before(one)
    for key, part in batch_of(1).items():
        assert seen[key] == part if key == "task" else torch.equal(seen[key], part)
    assert torch.equal(after(torch.tensor([[5.0, -7.0]])), torch.tensor([[5.0, -7.0]]))


def test_chunks_are_those_of_the_run_from_the_same_noise(lerobot, run):
    policy, batch = lerobot.EbbtidePolicy.from_run(run), batch_of(4, past=(2,))
    noise = Draws.first(4, 5)(-1, torch.empty(4, 8, 2))
    found = policy.predict_action_chunk(batch, noise=noise)
    images = (255 * batch["observation.images.top"]).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
    seen = {"state": batch["observation.state"], "images": images, "prompt": prompt_bytes(batch["task"], 8)}
    expected = run.sample(4, seed=5, seen=seen)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (policy.predict_action_chunk(batch) - expected).abs().max() > 0.01  # another seed's noise


def test_actions_are_those_of_the_control_loop(lerobot, run):
    """Three robots in lockstep, ten steps, two episodes; n_obs_steps and n_action_steps are the run's."""
    policy, loop = lerobot.EbbtidePolicy.from_run(run, seed=3), ebbtide.policy(run, seed=3)
    for episodes in ([0, 1, 2], [3, 4, 5]):
        policy.reset()
        loop.reset(episodes)
        for step in range(10):
            batch = batch_of(3, seed=step)
            ahead = policy.predict_action_chunk(batch)
            for slot in range(3):
                loop.observe(ours(batch, slot), slot)
            expected = loop.actions([0, 1, 2])
            found = policy.select_action(batch)
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
            if step % 4 == 0:  # a chunk is due, and predicting it before changed nothing
                torch.testing.assert_close(ahead[:, 0], found, rtol=1e-5, atol=1e-6)


def test_select_action_is_a_queue(lerobot, run):
    """One call of the network for n_action_steps actions, which are the chunk's first."""
    policy = lerobot.EbbtidePolicy.from_run(run, n_action_steps=3)
    calls, inner = [], policy.chunks.sample_chunks
    policy.chunks.sample_chunks = lambda *given, **how: calls.append(1) or inner(*given, **how)
    noise = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(0))
    chunk = policy.predict_action_chunk(batch_of(2), noise=noise)
    calls.clear()
    for step in range(3):
        action = policy.select_action(batch_of(2, seed=step), noise=noise)
        torch.testing.assert_close(action, chunk[:, step], rtol=1e-5, atol=1e-6)
        assert len(calls) == 1
    policy.select_action(batch_of(2, seed=3))
    assert len(calls) == 2
    policy.reset()
    again = policy.select_action(batch_of(2), noise=noise)
    assert len(calls) == 3
    torch.testing.assert_close(again, chunk[:, 0], rtol=1e-5, atol=1e-6)


def test_settings_reach_the_control_loop(lerobot, run):
    loop = lerobot.EbbtidePolicy.from_run(run, n_action_steps=1, ensemble=0.01, steps=3, sampler="heun").loop
    assert (loop.ensemble, loop.n_action_steps, loop.source.steps, loop.source.sampler) == (0.01, 1, 3, "heun")
    loop = lerobot.EbbtidePolicy.from_run(run, n_action_steps=4, delay=2, real_time=True).loop
    assert (loop.delay, loop.real_time, loop.ensemble, loop.n_action_steps) == (2, True, None, 4)


def test_a_saved_policy_is_the_same(lerobot, run, tmp_path):
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot_policy_ebbtide.convert import main

    run.save_pretrained(tmp_path / "exported")
    main([str(tmp_path / "exported"), "--out", str(tmp_path / "policy")])
    assert {path.name for path in (tmp_path / "policy").iterdir()} == {
        "config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json",
    }  # fmt: skip
    assert str(tmp_path) not in (tmp_path / "policy/config.json").read_text()
    config = PreTrainedConfig.from_pretrained(tmp_path / "policy")
    assert isinstance(config, lerobot.EbbtideConfig)
    own, noise = lerobot.EbbtidePolicy.from_run(run), torch.randn(2, 8, 2)
    policy = lerobot.EbbtidePolicy.from_pretrained(tmp_path / "policy")
    assert not policy.training
    assert torch.equal(
        policy.predict_action_chunk(batch_of(2), noise=noise), own.predict_action_chunk(batch_of(2), noise=noise)
    )
    policy.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "policy" / name).read_bytes()
    before, after = make_pre_post_processors(config, str(tmp_path / "policy"))
    assert [type(step).__name__ for step in before.steps][-1] == "NormalizerProcessorStep"
    assert torch.equal(after(torch.ones(1, 2)), torch.ones(1, 2))
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "again/model.safetensors")
    weights.pop(min(weights))
    save_file(weights, tmp_path / "again/model.safetensors")
    with pytest.raises(RuntimeError, match="Missing"):
        lerobot.EbbtidePolicy.from_pretrained(tmp_path / "again")


def test_forward_is_the_loss_of_the_run(lerobot, run):
    """Every weight learns, and a few steps on a batch make its loss smaller; the run itself stays as it is."""
    policy, before = lerobot.EbbtidePolicy.from_run(run).train(), run.fingerprint()
    batch = batch_of(4, past=(2,)) | {"action": 3 * torch.randn(4, 8, 2), "action_is_pad": torch.zeros(4, 8).bool()}
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        torch.manual_seed(1)
        loss, more = policy(batch)
        loss.backward()
        assert all(part.grad is not None for part in policy.get_optim_params())
        optimizer.step()
        losses.append(float(loss))
    assert more is None
    assert losses[-1] < 0.85 * losses[0]
    assert run.fingerprint() == before


def test_columns_and_angles_are_chosen_by_name(lerobot, tmp_path):
    """The run observes x and the sine and cosine of an angle, of a robot that reports three columns."""
    chosen = trained(tmp_path, state="x,turn", angles="turn")
    policy = lerobot.EbbtidePolicy.from_run(chosen, state_names=["x", "turn", "z"])
    assert policy.config.robot_state_feature.shape == (3,)
    state, noise = torch.tensor([[1.0, 0.3, 9.0]]), torch.randn(1, 8, 2)
    expected = lerobot.EbbtidePolicy.from_run(chosen).predict_action_chunk(
        {"observation.state": torch.tensor([[1.0, np.sin(0.3), np.cos(0.3)]], dtype=torch.float32)}, noise=noise
    )
    found = policy.predict_action_chunk({"observation.state": state}, noise=noise)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_fitted_solvers_go_with_the_weights(lerobot, tmp_path):
    ready = trained(tmp_path)
    own = Tuned(2, "euler", "uniform", 2, 0.1, 0.1, 0.01, 0.2, ready.fingerprint())
    policy = lerobot.EbbtidePolicy.from_run(replace(ready, tuned=(own,)))
    policy.save_pretrained(tmp_path / "policy")
    again = lerobot.EbbtidePolicy.from_pretrained(tmp_path / "policy")
    assert again.trained.tuned == (own,)


def test_a_new_policy_is_scaled_by_a_data_sets_statistics(lerobot, tmp_path):
    from lerobot.configs.types import FeatureType, PolicyFeature

    stats = {
        "observation.state": {"mean": [1.0, 2.0], "std": [2.0, 0.0], "min": [0.0, 2.0], "max": [4.0, 2.0]},
        "action": {"mean": [0.0], "std": [1e-9], "min": [-1.0], "max": [3.0], "q01": [-0.5], "q99": [2.5]},
    }
    features = {
        "input_features": {"observation.state": PolicyFeature(FeatureType.STATE, (2,))},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (1,))},
    }
    small = {"device": "cpu", "horizon": 8, "network": "action_unet:width=8,emb=16", **features}
    config = lerobot.EbbtideConfig(**small)
    policy = lerobot.EbbtidePolicy(config, dataset_stats=stats | {"action": stats["action"] | {"std": [0.5]}})
    # An untrained network says 0, so its error is that of the velocity ε - x₀ itself: 1 + 2²; ± 0.05 for 4096 numbers.
    batch = {"observation.state": torch.zeros(512, 2), "action": torch.ones(512, 8, 1)}
    torch.manual_seed(0)
    loss, _ = policy(batch)
    assert abs(loss - 5) < 0.45
    batch["action"][:, 4:], pads = 1000.0, torch.arange(8).expand(512, 8) >= 4
    torch.manual_seed(0)
    loss, _ = policy(batch | {"action_is_pad": pads})
    assert abs(loss - 2.5) < 0.45
    policy = lerobot.EbbtidePolicy(lerobot.EbbtideConfig(**small), dataset_stats=stats, dataset_meta=None)
    assert policy.trained.observation.codec.std == (2.0, 0.0)
    assert policy.trained.codec.std == (0.01,)  # the recipe's least
    config = lerobot.EbbtideConfig(
        device="cpu", normalise="quantiles", objective="diffusion", n_obs_steps=2, **features
    )
    policy = lerobot.EbbtidePolicy(config, dataset_stats={**stats, "observation.state": stats["observation.state"] | {
        "q01": [0.0, 2.0], "q99": [4.0, 2.0]}})  # fmt: skip
    assert (policy.trained.codec.low, policy.trained.codec.high) == ((-0.5,), (2.5,))
    assert (policy.recipe.path, policy.recipe.target) == ("ddpm:betas=squared_cosine", "noise")
    policy.save_pretrained(tmp_path / "new")
    again = lerobot.EbbtidePolicy.from_pretrained(tmp_path / "new")
    noise, batch = torch.randn(1, 16, 1), {"observation.state": torch.zeros(1, 2, 2)}
    assert torch.equal(
        again.predict_action_chunk(batch, noise=noise), policy.eval().predict_action_chunk(batch, noise=noise)
    )


def test_lerobots_rollout_drives_push_t(lerobot, tmp_path):
    """lerobot-eval's own loop, from the folder that its command takes as --policy.path, in two environments."""
    pytest.importorskip("gym_pusht")
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.envs.configs import PushtEnv
    from lerobot.envs.factory import make_env, make_env_pre_post_processors
    from lerobot.policies.factory import make_policy, make_pre_post_processors
    from lerobot.scripts.lerobot_eval import rollout
    from lerobot_policy_ebbtide.convert import convert

    draw = np.random.default_rng(0)
    place = draw.uniform(0, 512, (40, 2)).astype(np.float32)
    np.savez(tmp_path / "pusht.npz", state=place, action=place, episode_ends=[20, 40],
             image=draw.integers(0, 256, (40, 32, 32, 3)).astype(np.uint8))  # fmt: skip
    recipe = ebbtide.flow_policy(data=str(tmp_path / "pusht.npz"), steps=2, batch=8, cameras="image", size=32,
                                 network="action_unet:width=8,emb=16,tokens=16,channels=16")  # fmt: skip
    ebbtide.fit(recipe, out=tmp_path / "run")
    convert(tmp_path / "run", tmp_path / "policy")
    config = PreTrainedConfig.from_pretrained(tmp_path / "policy")
    config.pretrained_path = tmp_path / "policy"
    where = PushtEnv(episode_length=6, observation_height=64, observation_width=64)
    envs = make_env(where, n_envs=2)["pusht"][0]
    policy = make_policy(config, env_cfg=where)
    before, after = make_pre_post_processors(config, str(config.pretrained_path))
    found = rollout(envs, policy, *make_env_pre_post_processors(where, config), before, after, seeds=[0, 1])
    envs.close()
    assert found["action"].shape == (2, 6, 2)
    assert torch.isfinite(found["action"]).all()


def test_lerobots_trainer_trains_and_resumes(lerobot, tmp_path, monkeypatch):
    """lerobot-train, from scratch on a data set in LeRobot's format, and from the checkpoint that it wrote."""
    from lerobot.scripts import lerobot_train

    from ebbtide.interop.lerobot import write_dataset
    from ebbtide.kinds.robots.source import load_episodes

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_dataset(load_episodes(recorded(tmp_path, fps=10)), tmp_path / "set")
    common = [
        "--dataset.repo_id=some/joints", f"--dataset.root={tmp_path / 'set'}", "--policy.device=cpu",
        "--policy.push_to_hub=false", "--batch_size=8", "--steps=3", "--save_freq=3", "--num_workers=0",
        "--wandb.enable=false", "--log_freq=1",
    ]  # fmt: skip
    scratch = ["--policy.type=ebbtide", "--policy.horizon=8", "--policy.network=action_unet:width=8,emb=16"]
    monkeypatch.setattr(sys, "argv", ["lerobot-train", *scratch, *common, f"--output_dir={tmp_path / 'first'}"])
    lerobot_train.train()
    folder = tmp_path / "first/checkpoints/last/pretrained_model"
    policy = lerobot.EbbtidePolicy.from_pretrained(folder)
    assert policy.select_action({"observation.state": torch.zeros(1, 3)}).shape == (1, 2)
    more = [f"--policy.path={folder}", *common, f"--output_dir={tmp_path / 'second'}"]
    monkeypatch.setattr(sys, "argv", ["lerobot-train", *more])
    lerobot_train.train()
    after = lerobot.EbbtidePolicy.from_pretrained(tmp_path / "second/checkpoints/last/pretrained_model")
    assert after.config.run["codec"] == policy.config.run["codec"]
    assert any(not torch.equal(a, b) for a, b in zip(policy.parameters(), after.parameters(), strict=True))


def test_bad_input_is_one_sentence(lerobot, run, tmp_path):
    from lerobot_policy_ebbtide.convert import convert, main

    policy = lerobot.EbbtidePolicy.from_run(run)
    policy.select_action(batch_of(2))
    for call, named in {
        "another number": (lambda: policy.select_action(batch_of(3)), "2 robots act since reset"),
        "several steps": (lambda: policy.select_action(batch_of(2, past=(2,))), "one step at a time"),
        "no image": (lambda: policy.select_action({"observation.state": torch.zeros(2, 3)}), "observation.images.top"),
        "no statistics": (lambda: lerobot.EbbtidePolicy(lerobot.EbbtideConfig(device="cpu")), "dataset_stats"),
        "points": (lambda: lerobot.EbbtidePolicy(lerobot.EbbtideConfig(device="cpu", recipe="flow"),
                                                 dataset_stats={"action": {}}), "for robots"),
        "a folder that exists": (lambda: convert("nowhere", tmp_path), "exists"),
    }.values():  # fmt: skip
        with pytest.raises(InputError, match=named) as refused:
            call()
        assert "\n" not in str(refused.value)
    with pytest.raises(SystemExit, match=r"error: .*nowhere"):
        main(["nowhere", "--out", str(tmp_path / "policy")])


@pytest.mark.slow
def test_with_lerobot_itself(tmp_path):
    """The tests of BESIDE, beside LeRobot 0.4.4; and LeRobot finds the installed plugin by its name."""
    if os.environ.get("EBBTIDE_IN_LEROBOT"):
        pytest.skip("LeRobot is at hand")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path / "packages")]
    done = subprocess.run([*install, *PACKAGES, str(PLUGIN)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    own = os.pathsep.join(filter(None, [str(tmp_path / "packages"), os.environ.get("PYTHONPATH")]))
    env = os.environ | {"PYTHONPATH": own, "EBBTIDE_IN_LEROBOT": "1", "HF_HOME": str(tmp_path / "hf")}
    found = (
        "from lerobot.utils.import_utils import register_third_party_plugins as find; import importlib.metadata as m;"
        "print([d.metadata['Name'] for d in m.distributions() if (d.metadata['Name'] or '').startswith('lerobot_')])"
    )
    ran = subprocess.run([sys.executable, "-c", found], env=env, capture_output=True, text=True)
    assert ran.stdout.strip() == "['lerobot_policy_ebbtide']", ran.stderr
    ran = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *BESIDE],
                         env=env, capture_output=True, text=True, cwd=ROOT)  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-5000:]
    assert "skipped" not in ran.stdout.splitlines()[-1]
