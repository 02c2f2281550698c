"""A policy is trained on windows of episodes, told what its recipe lets it see, and tried out in a simulator."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ebbtide import memory
from ebbtide.cache import cache_folder, kept_here
from ebbtide.data import Observation, shards, unread
from ebbtide.data.levels import Levels
from ebbtide.data.place import said, settled_on
from ebbtide.errors import InputError
from ebbtide.kinds.robots import data as robots_data, driving as robots_driving, kind as robots, source as robots_source
from ebbtide.kinds.runs import begin as prepare, from_pretrained, rehearsed, train_recipe as fit
from ebbtide.recipes import RECIPES
from ebbtide.robots.rollout import Episode, rollout
from ebbtide.robots.simulators import SIMULATORS
from ebbtide.training.run import untrained
from ebbtide.training.settings import data_fingerprint, same
from recording import record

SMALL = {
    "batch": 16,
    "steps": 3,
    "horizon": 8,
    "n_obs_steps": 1,
    "n_action_steps": 4,
    "angles": "",
    "state": "all",
    "network": "action_unet:width=8,emb=16",
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return record(tmp_path_factory.mktemp("data") / "episodes.npz", episodes=24, pictures=True)


def test_what_is_seen_must_fit_into_memory(file, monkeypatch):
    assert len(robots_data.observations(recipe(file), 1000, seed=0, first=0)["state"]) == 1000
    monkeypatch.setattr(memory, "available", lambda: 1e5)
    with pytest.raises(InputError, match=r"n 100000 would take about 0.00373 GiB"):  # a state is five numbers
        robots_data.observations(recipe(file), 100_000, seed=0, first=0)


def recipe(file, base="flow-policy-pusht", **changes):
    return replace(RECIPES[base](), **{"data": file, **SMALL, **changes})


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    """A policy that has learned where to go: to the middle, a tenth of the way at each step."""
    folder = tmp_path_factory.mktemp("run") / "run"
    wanted = recipe(file, steps=120, lr=5e-3, batch=64, network="action_unet:width=16,emb=32", normalise="mean_std")
    return fit(wanted, folder, progress=False, snapshots=2, checkpoints=1), folder


def test_what_is_held_out_is_never_trained_on(file):
    asked = recipe(file, held_out=0.25)
    train, held = robots_data.parts(asked)
    assert (len(train), len(held)) == (18, 6)
    rows = {tuple(row) for row in train.state.tolist()}
    assert not any(tuple(row) in rows for row in held.state.tolist())
    assert robots_data.parts(replace(asked, seed=5))[1] is held  # whatever the seed
    seen = robots_data.observations(asked, 84, seed=0, first=0)["state"]
    assert {tuple(row) for row in seen[:, -1].tolist()} == {tuple(row) for row in held.state.tolist()}


def test_the_range_of_depths_is_stored_by_camera(file, monkeypatch):
    """A recording that has a camera of more than 8 bits; what was given is asked for again, by its name."""
    with pytest.raises(InputError, match=r"those of camera 'top' in .* have 8"):
        prepare(replace(recipe(file, cameras="top"), value_range="top=0:9"))
    told = []

    def load(data, cameras, size, levels):
        told.append(dict(levels))
        return replace(robots_source.open_episodes(data, cameras, size), levels={"top": Levels(300, 2200)} | levels)

    monkeypatch.setattr(robots_data, "open_episodes", load)
    start, _ = prepare(asked := recipe(file, cameras="top"))
    assert (start.recipe.value_range, told) == ("top=300:2200", [{}])
    robots_data.parts(start.recipe)
    assert told[1] == {"top": (300, 2200)}
    start, _ = prepare(replace(asked, value_range="top=0:4000"))
    assert start.recipe.value_range == "top=0:4000"
    for wrong in ("0:4000", "other=0:4000", "top", "top=5"):
        with pytest.raises(InputError, match="value_range must be"):
            prepare(replace(asked, value_range=wrong))


def test_a_window_is_what_the_file_says_normalised(file):
    for normalise in ("mean_std", "quantiles", "min_max"):
        prepared = robots_data.prepare(recipe(file, n_obs_steps=2, normalise=normalise))
        train, _ = robots_data.parts(recipe(file))
        taken = prepared.data.take(torch.tensor([3, 12]), None)
        assert prepared.codec.decode(taken["x0"])[0].allclose(train.action[3:11], atol=1e-3)
        assert prepared.observation.codec.decode(taken["state"])[1].allclose(train.state[11:13], atol=1e-3)
        assert taken["mask"][1, :, 0].tolist() == [True, True] + [False] * 6
    low, high = taken["x0"].amin(), taken["x0"].amax()
    assert -1 <= low < high <= 1
    assert prepared.shape == (8, 2)
    assert prepared.columns == ("target_x", "target_y")


def test_what_hardly_moves_is_not_stretched(file):
    still = robots_data.prepare(recipe(file, normalise="mean_std", least=400.0))
    assert still.codec.std == (400.0, 400.0)
    assert still.observation.codec.std == (400.0,) * 5
    assert robots_data.prepare(recipe(file, normalise="min_max", least=400.0)).codec.scale == (400.0, 400.0)


def test_a_recipe_decides_what_the_policy_sees(file):
    shapes = lambda **changes: robots_data.prepare(recipe(file, **changes)).observation.shapes
    assert shapes(n_obs_steps=1) == {"state": (1, 5)}
    assert shapes(n_obs_steps=2, state="agent_x,block_angle") == {"state": (2, 2)}
    assert shapes(n_obs_steps=2, state="agent_x,block_angle", angles="block_angle") == {"state": (2, 3)}
    assert shapes(n_obs_steps=2, state="none", cameras="top", size=8, prompt=20) == {
        "images": (2, 8, 8, 3), "prompt": (20,),
    }  # fmt: skip
    for changes, words in (
        ({"state": "none"}, "must see something"),
        ({"state": "angle"}, "no column 'angle'"),
        ({"cameras": "left"}, "no array 'left'"),
    ):
        with pytest.raises(InputError, match=words):
            shapes(**changes)


def test_a_recording_without_a_state_is_seen_by_its_pictures(file, tmp_path):
    arrays = dict(np.load(file))
    np.savez(tmp_path / "a.npz", **{name: part for name, part in arrays.items() if not name.startswith("state")})
    asked = recipe(str(tmp_path / "a.npz"), cameras="top", size=8)
    assert robots_data.prepare(asked).observation.shapes == {"images": (1, 8, 8, 3)}
    assert robots_data.prepare(asked).observation.names == ()
    assert robots_data.prepare(replace(asked, cameras="", prompt=20)).observation.shapes == {"prompt": (20,)}
    with pytest.raises(InputError, match=r"must see something: .*a\.npz has no state; name its cameras\.$"):
        robots_data.prepare(replace(asked, cameras=""))
    with pytest.raises(InputError, match="The state has no column 'agent_x'; it has none"):
        robots_data.prepare(replace(asked, state="agent_x"))


def test_one_episode_is_too_few(tmp_path):
    with pytest.raises(InputError, match="at least 2 episodes, one of them to hold out; got 1"):
        robots_data.prepare(recipe(record(tmp_path / "one.npz", episodes=1)))


@pytest.mark.parametrize("base", [name for name, row in RECIPES.items() if row().kind == "robots"])
def test_every_recipe_for_robots_can_be_rehearsed(base, file):
    start = rehearsed(recipe(file, base, batch=4, cameras="top" if RECIPES[base]().cameras else ""))
    assert start.shape == (8, 2)


def test_a_policy_is_kept_and_comes_back(run, file):
    trained, folder = run
    again = from_pretrained(folder)
    assert again.observation == trained.observation
    seen = robots_data.observations(trained.recipe, 5, 0, 0)
    assert again.sample(5, seen=seen).equal(trained.sample(5, seen=seen))


def test_a_chunk_depends_on_what_is_seen_and_not_on_the_batch(run):
    trained, _ = run
    seen = robots_data.observations(trained.recipe, 6, 0, 0)
    x = trained.sample(6, seen=seen)
    one = trained.sample(1, first=4, seen={name: part[4:5] for name, part in seen.items()})
    assert x[4:5].allclose(one, atol=1e-2)
    moved = trained.sample(6, seen={"state": seen["state"] + torch.tensor([100.0, 0, 0, 0, 0])})
    assert float((moved - x)[..., 0].mean()) > 30


def test_the_policy_learned_and_the_error_says_so(run):
    trained, _ = run
    seen = robots_data.observations(trained.recipe, 64, 0, 0)
    [row] = robots.evaluate(trained.recipe, trained.sample(64, seen=seen), seed=0)
    [random] = robots.evaluate(trained.recipe, 256 + 100 * torch.randn(64, 8, 2), seed=0)
    assert row.value < 20 < random.value
    draws = torch.stack([trained.sample(64, first=64 * k, seen=seen) for k in range(4)], 1)
    mean, best = robots.evaluate(trained.recipe, draws, seed=0)
    assert (mean.name, best.name) == ("mean absolute error", "best of 4")
    assert best.value < min(mean.value, row.value)
    truth, _ = robots_data.real(trained.recipe, 64, 0)
    assert robots.evaluate(trained.recipe, truth, seed=0)[0].value == 0


def test_other_chunks_for_other_numbers(run):
    trained, _ = run
    seen = {
        name: part.expand(4, *part.shape[1:])
        for name, part in robots_data.observations(trained.recipe, 1, 0, 0).items()
    }
    x = trained.sample(4, seen=seen)
    assert not x[0].equal(x[1])
    walk = trained.trajectory(2, seen={"state": seen["state"][:2]}, ids=torch.tensor([3, 1]))
    *_, (_, y) = walk
    assert y.allclose(x[[3, 1]], atol=1e-2)


def test_a_run_on_points_takes_no_observations(tmp_path):
    from ebbtide.recipes import PointRecipe

    trained = fit(
        PointRecipe(points=50, steps=2, batch=8, network="mlp:width=8,depth=1"), tmp_path / "r", progress=False
    )
    with pytest.raises(InputError, match="without observations"):
        trained.sample(2, seen={"state": torch.zeros(2, 1, 5)})
    with pytest.raises(InputError, match="Only a run that was trained on episodes is a policy"):
        robots_driving.policy(trained)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"state": torch.zeros(1, 2, 5)}, r"state must be float32 of shape \(b, 1, 5\)"),
        ({"state": torch.zeros(1, 1, 4)}, "columns"),
        ({}, "state is missing"),
        ({"state": torch.full((1, 1, 5), torch.nan)}, "finite"),
    ],
)
def test_a_bad_observation_is_one_clear_sentence(run, seen, words):
    trained, _ = run
    with pytest.raises(InputError, match=words):
        trained.sample(1, seen=seen)


class Middle:
    """A simulator in which the agent goes where it is sent, and is to stay in the middle; white images."""

    name, task, fps, max_steps = "middle", "Go to the middle.", 10.0, 40
    state_names = ("agent_x", "agent_y", "block_x", "block_y", "block_angle")
    action_names = ("target_x", "target_y")
    low, high = np.zeros(2, np.float32), np.full(2, 512, np.float32)

    def __init__(self, *, pixels=False):
        self.success, self.score, self.pixels = False, 0.0, pixels

    def reset(self, seed):
        self.agent = np.random.default_rng(seed).uniform(100, 400, 2)
        self.success, self.score, self.there = False, 0.0, 0
        return self.observe()

    def step(self, action):
        self.agent = action
        self.there = self.there + 1 if np.abs(action - 256).max() < 40 else 0  # steps on end
        self.score = max(self.score, min(1.0, self.there / 8))
        self.success = self.score == 1
        return self.observe(), 0.0, self.success

    def observe(self):
        seen = {"state": np.array([*self.agent, 200, 200, 1], np.float32)}
        return seen | ({"images": np.full((1, 32, 32, 3), 255, np.uint8)} if self.pixels else {})

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)

    def close(self):
        pass


@pytest.fixture
def middle(monkeypatch):
    monkeypatch.setitem(SIMULATORS, "middle", Middle)


def test_a_policy_that_learned_does_better_than_one_that_did_not(run, file, middle, tmp_path):
    trained, _ = run
    tried = robots_driving.episodes(trained, range(8), simulator="middle")
    fresh = fit(replace(trained.recipe, steps=1, lr=0.0), tmp_path / "fresh", progress=False, snapshots=0)
    untrained = robots_driving.episodes(fresh, range(8), simulator="middle")
    rate, score, length = robots_driving.outcome(tried)
    assert rate.value == 1
    assert robots_driving.outcome(untrained)[0].value <= 0.5
    assert (score.name, length.name) == ("mean score", "episode length")
    assert length.value < 40


def test_a_place_shows_what_the_recipe_lets_be_seen(file, middle):
    def place(**changes):
        blind = changes.pop("blind", False)
        asked = recipe(file, **{"state": "agent_y,block_angle", "cameras": "top", "size": 8, **changes})
        return robots_driving.Place.of(
            untrained(asked, robots_data.prepare(asked)), changes.get("simulator") or "middle", blind
        )()

    shown = place()
    seen = shown.reset(3)
    assert seen["state"].tolist() == [shown.simulator.agent[1].astype(np.float32), 1.0]
    turned = place(angles="block_angle").reset(3)["state"]
    assert turned[1:] == pytest.approx([np.sin(1), np.cos(1)])
    assert seen["images"].shape == (1, 8, 8, 3)
    assert seen["images"].min() == 255
    assert place(blind=True).reset(3)["images"].max() == 0
    assert (shown.task, shown.fps) == ("Go to the middle.", 10.0)
    with pytest.raises(InputError, match=r"simulator must be one of pusht, .*, middle; got 'moon'"):
        place(simulator="moon")
    nowhere = untrained(asked := recipe(file, simulator=""), robots_data.prepare(asked))
    with pytest.raises(InputError, match=r"^This policy's recipe names no simulator; choose one of pusht, .*, middle"):
        robots_driving.Place.of(nowhere)


def test_a_simulator_that_shows_something_else_is_refused(tmp_path, middle):
    asked = recipe(record(tmp_path / "a.npz", state_names=np.array(["block_x", "agent_x", "a", "b", "c"])))
    place = robots_driving.Place.of(untrained(asked, robots_data.prepare(asked)), "middle")
    with pytest.raises(InputError, match="trained with the state block_x, agent_x, a, b, c; that of middle is agent_x"):
        place().reset(0)


OTHERS = {
    "action_names": (
        np.array(["target_y", "target_x"]),
        "the action target_x, target_y; that of {} is target_y, target_x",
    ),
    "fps": (np.array(50.0), "trained on 10 steps a second; {} has 50 steps a second"),
    "state_names": (
        np.array(["block_x", *"abcd"]),
        "the state agent_x.* block_angle; that of {} is block_x, a, b, c, d",
    ),
}


@pytest.mark.parametrize("part", OTHERS)
def test_a_simulator_of_another_robot_is_refused(run, part, middle, monkeypatch):
    """Before an episode begins: by the library's commands, and in `rollout` with a simulator of one's own."""
    trained, _ = run
    other, words = OTHERS[part]
    monkeypatch.setattr(Middle, part, other.item() if part == "fps" else tuple(other.tolist()))
    for use in (
        lambda: robots_driving.episodes(trained, [0], simulator="middle"),
        lambda: robots_driving.chunk_time(trained, simulator="middle", repeats=1),
        lambda: rollout(Middle, robots_driving.policy(trained), [0], progress=False),
    ):
        with pytest.raises(InputError, match=words.format("middle")):
            use()


@pytest.mark.parametrize("part", OTHERS)
def test_a_recording_of_another_robot_is_refused(part, tmp_path):
    """Whatever reads the recording again: samples, plots, more training."""
    asked, folder = recipe(record(tmp_path / "a.npz", pictures=True), cameras="top", action="all"), tmp_path / "run"
    trained = fit(asked, folder, progress=False, snapshots=0)
    other, words = OTHERS[part]
    record(tmp_path / "a.npz", pictures=True, **{part: other})
    for use in (
        lambda: trained.sample(2),
        lambda: list(robots.draw_evaluation(trained, torch.zeros(1), tmp_path)),
        lambda: robots.draw_samples(from_pretrained(folder), torch.zeros(1), None, tmp_path / "fan.png"),
        lambda: fit(asked, folder, resume=True, progress=False),
    ):
        with pytest.raises(InputError, match=words.format(r".*a\.npz")):
            use()


def test_what_is_not_known_is_not_compared(tmp_path, middle):
    """A recording without names or a rate, as Push-T's own; and a run of an older version, which stored no rate."""
    arrays = np.load(record(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", **{name: arrays[name] for name in ("state", "action", "episode_ends")})
    asked = recipe(str(tmp_path / "b.npz"), action="all")
    trained = untrained(asked, robots_data.prepare(asked))
    assert robots_data.robot_of(trained) == (tuple(f"state_{i}" for i in range(5)), ("action_0", "action_1"), 0.0)
    robots_driving.Place.of(trained, "middle")().reset(0)
    robots_data.same_recording(trained)
    config = trained.observation.to_config()
    assert Observation.from_config(config) == trained.observation
    del config["fps"]
    assert Observation.from_config(config).fps == 0


def test_a_recipe_may_name_and_order_the_actions(tmp_path, middle):
    """By name where the recording has them in another order, by place where it has none or others."""
    swapped = record(tmp_path / "a.npz", action_names=np.array(["target_y", "target_x"]))
    plain, turned = (robots_data.parts(recipe(swapped, action=action))[0] for action in ("all", "target_x,target_y"))
    assert turned.action_names == ("target_x", "target_y")
    assert turned.action.equal(plain.action.flip(1))
    motors = recipe(record(tmp_path / "b.npz", action_names=np.array(["motor_0", "motor_1"])))
    assert robots_data.prepare(motors).columns == ("target_x", "target_y")
    robots_driving.Place.of(untrained(motors, robots_data.prepare(motors)), "middle")().reset(0)
    for action, words in (("target_x,up", "The action has no column 'up'"), ("none", "at least one action")):
        with pytest.raises(InputError, match=words):
            robots_data.parts(recipe(swapped, action=action))


def test_a_recording_that_was_replaced_is_read_anew(tmp_path):
    """In the same process and under the same name: what is trained on and held out are those of the new file."""
    asked = recipe(record(tmp_path / "a.npz"))
    first, again = robots_data.parts(asked), robots_data.parts(asked)
    assert first[0] is again[0]
    record(tmp_path / "a.npz", seed=1)
    second = robots_data.parts(asked)
    record(tmp_path / "b.npz", seed=1)
    fresh = robots_data.parts(replace(asked, data=str(tmp_path / "b.npz")))
    for old, new, expected in zip(first, second, fresh, strict=True):
        assert not old.state.equal(new.state)
        assert new.state.equal(expected.state)
    assert robots_data.prepare(asked).codec != robots_data.prepare(recipe(record(tmp_path / "a.npz"))).codec


def test_a_bound_holds_in_the_loop_and_the_network_is_asked_once_a_chunk(run, monkeypatch):
    trained, _ = run
    calls = []
    network = trained.denoiser.network
    context = network.context
    monkeypatch.setattr(network, "context", lambda **seen: calls.append(1) or context(**seen))
    trained.denoiser.train()
    seen = {"state": np.array([100, 100, 200, 200, 1], np.float32)}
    one, two = (robots_driving.policy(trained, bound=0.1).predict_action_chunk(seen)[0] for _ in range(2))
    assert (one == two).all()
    assert len(calls) == 2
    free = robots_driving.policy(trained).predict_action_chunk(seen)[0]
    unit = lambda chunk: trained.codec.encode(torch.from_numpy(chunk)).abs().max()
    assert unit(one) <= 0.1 + 1e-5 < unit(free)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conditional": True}, "A policy has no labels"),
        ({"data": ""}, "data is missing"),
        ({"simulator": "moon"}, "simulator must be one of pusht"),
        ({"network": "action_expert:variant=pi05", "normalise": "mean_std"}, "normalise by quantiles"),
        ({"network": "mlp"}, "network 'mlp' takes no observations"),
        ({"coupling": "ot"}, "coupling 'ot' can't be: what the network is told differs"),
        ({"stable_targets": True}, "stable_targets can't be"),
    ],
)
def test_what_a_policy_cannot_be_is_said_before_it_is_trained(file, changes, words):
    with pytest.raises(InputError, match=words):
        rehearsed(recipe(file, **changes))


def test_an_objective_decides_all_that_goes_with_it(file):
    diffusion = recipe(file, normalise="min_max").with_objective("diffusion")
    assert (diffusion.path, diffusion.target, diffusion.bound) == ("ddpm:betas=squared_cosine", "noise", 1.0)
    assert recipe(file, normalise="mean_std").with_objective("diffusion").bound == 0  # it would cut at ± 1 std
    assert diffusion.with_objective("flow_matching") == recipe(file, normalise="min_max", sample_steps=10)
    with pytest.raises(InputError, match="objective must be one of flow_matching, diffusion; got 'magic'"):
        diffusion.with_objective("magic")
    with pytest.raises(InputError, match="would cut off actions beyond as many standard deviations"):
        replace(diffusion, normalise="mean_std")


@pytest.mark.unchecked  # else the check of types refuses them first
@pytest.mark.parametrize(
    "seen",
    [np.zeros((3, 1, 5)), [1, 2, 3], {"state": np.zeros((3, 1, 5))}, {"state": 1.0}, {"state": torch.tensor(1.0)}],
)
def test_what_is_seen_are_tensors_by_name(run, seen):
    with pytest.raises(InputError, match=r"^seen must be a Mapping; got|^seen\['state'\] must be a tensor.*; got"):
        run[0].sample(3, seen=seen)


def test_there_must_be_an_observation_for_every_sample(run):
    trained, _ = run
    with pytest.raises(
        InputError, match=r"seen\['state'\] must be .* shape \(3, …\); got a tensor of shape \(2, 1, 5\)"
    ):
        next(trained.trajectory(3, seen={"state": torch.zeros(2, 1, 5)}))


def test_an_error_is_counted_as_a_failure():
    tried = [Episode(0, True, 1.0, 10), Episode(1, False, 0.0, 3, "ValueError: broken")]
    rate, score, length = robots_driving.outcome(tried)
    assert (rate.value, score.value, length.value) == (0.5, 0.5, 6.5)
    assert "1 ended by an error, such as ValueError: broken" in rate.note


def test_chunks_are_written(run, tmp_path):
    trained, _ = run
    robots.write(trained, torch.ones(3, 8, 2), None, tmp_path / "chunks.npz")
    with np.load(tmp_path / "chunks.npz") as archive:
        assert archive["chunks"].shape == (3, 8, 2)
        assert archive["action_names"].tolist() == ["target_x", "target_y"]


# --- on the disk ----------------------------------------------------------------------------------------------------

SEEN = {
    "n_obs_steps": 2, "cameras": "top,side", "size": 8, "prompt": 20, "angles": "block_angle",
    "state": "agent_x,block_angle",
}  # fmt: skip


@pytest.fixture
def cameras(tmp_path, monkeypatch):
    """A recording of two cameras, and a cache whose shards hold a few steps."""
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "SIZE", 1200)
    robots_data._parts.cache_clear()
    side = np.random.default_rng(0).integers(0, 256, (24 * 14, 12, 16, 3), np.uint8)
    yield record(tmp_path / "episodes.npz", episodes=24, pictures=True, side=side)
    robots_data._parts.cache_clear()


def weights(trained):
    return {name: part.clone() for name, part in trained.denoiser.state_dict().items()}


@pytest.mark.parametrize("normalise", ["mean_std", "quantiles", "min_max"])
def test_batches_from_the_disk_are_those_from_memory_to_the_bit(cameras, normalise, monkeypatch):
    asked = recipe(cameras, normalise=normalise, **SEEN)
    whole = robots_data.prepare(asked)
    monkeypatch.setattr(shards.OnDisk, "tensor", lambda self: pytest.fail("all of it is read at once"))
    kept = robots_data.prepare(asked, data_on="disk")
    assert (kept.codec, kept.observation, kept.shape) == (whole.codec, whole.observation, whole.shape)
    assert same(data_fingerprint(whole.data), data_fingerprint(kept.data))
    other = replace(kept.data, action=shards.Derived((kept.data.action,), lambda x: x.flip(1)))
    assert not same(data_fingerprint(whole.data), data_fingerprint(other))
    data = settled_on(kept.data, torch.device("cpu"), "disk")
    assert data.ahead
    assert len(data) == len(whole.data) == 23 * 14
    indices = torch.randint(len(data), (100,), generator=torch.Generator().manual_seed(0))
    for places in (torch.arange(len(data)), indices):
        expected, found = whole.data.take(places), data.take(places)
        assert found.keys() == expected.keys() == {"x0", "mask", "state", "images", "prompt"}
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert found["images"].shape == (100, 4, 8, 8, 3)
    assert said(data, "disk") == f"322 examples, {322 * (2 * 4 + 3 * 4 + 2 * 192) / 1e3:.3g} kB, lie on the disk."


def test_a_run_from_the_disk_is_that_from_memory_also_after_damage(cameras, tmp_path, monkeypatch):
    """A file is damaged while it trains: it ends in a sentence, and goes on when that is made again."""
    asked = recipe(cameras, steps=8, **SEEN)
    options = {"progress": False, "snapshots": 0, "checkpoints": 1, "solvers": False}
    whole = weights(fit(asked, tmp_path / "memory", data_on="device", **options))
    made = fit(asked, tmp_path / "disk", data_on="disk", **options)
    assert all(torch.equal(part, whole[name]) for name, part in weights(made).items())

    def harm(trainer, record):
        if record.step == 4:
            (actions,) = (note.parent for note in cache_folder().glob("*/state.json") if "'action'" in note.read_text())
            file = actions / "000000000000.safetensors"
            sound = file.read_bytes()
            file.write_bytes(sound[:-1000] + bytes(byte ^ 1 for byte in sound[-1000:]))  # 125 of its 150 steps

    with pytest.raises(InputError, match=r"array 'action': .*0\.safetensors is damaged; only that file is made again"):
        fit(asked, tmp_path / "harmed", data_on="disk", watch=harm, **options)
    made = fit(asked, tmp_path / "harmed", data_on="disk", resume=True, **options)
    assert all(torch.equal(part, whole[name]) for name, part in weights(made).items())
    entries = kept_here()
    assert {entry.name.partition("-")[0] for entry in entries} == {"episodes"}
    assert sorted(entry.of.rpartition(" ")[2] for entry in entries) == ["'action'", "'side'", "'state'", "'top'"]


def test_a_large_recording_is_evaluated_where_it_lies(cameras, monkeypatch):
    asked = recipe(cameras, **SEEN)
    plain = robots_data.observations(asked, 30, seed=0, first=0), robots_data.real(asked, 30, 1)[0]
    episode, seen = robots_data.held_episode(asked)
    robots_data._parts.cache_clear()
    monkeypatch.setattr(shards, "LARGE", 100)
    assert isinstance(robots_data.parts(asked)[1].action, shards.OnDisk)
    again = robots_data.observations(asked, 30, seed=0, first=0), robots_data.real(asked, 30, 1)[0]
    assert all(torch.equal(part, again[0][name]) for name, part in plain[0].items())
    assert torch.equal(plain[1], again[1])
    other, same_seen = robots_data.held_episode(asked)
    assert torch.equal(other.action, episode.action)
    assert all(torch.equal(part, same_seen[name]) for name, part in seen.items())
    assert isinstance(robots_data.parts(asked, "auto")[0].action, torch.Tensor)  # to train on, where it fits
    monkeypatch.setattr(unread, "available", lambda: 1000)
    robots_data._parts.cache_clear()
    assert isinstance(robots_data.parts(asked, "auto")[0].action, shards.OnDisk)


def test_a_recording_without_state_lies_on_the_disk(tmp_path, cameras):
    held = dict(np.load(cameras))
    np.savez(tmp_path / "blind.npz", **{name: held[name] for name in held if "state" not in name})
    asked = recipe(str(tmp_path / "blind.npz"), cameras="top")
    taken = robots_data.prepare(asked, data_on="disk").data.take(torch.tensor([5]))
    assert torch.equal(taken["images"], robots_data.prepare(asked).data.take(torch.tensor([5]))["images"])
    assert "state" not in taken
