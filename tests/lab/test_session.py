"""Every action of a page, and whatever else a page may send."""

import json
import random

import numpy as np
import pytest
import torch

from ebbtide import EbbtideError
from ebbtide.lab import learning, sampling, session
from ebbtide.lab.session import ACTIONS, Lab, answer, is_light
from ebbtide.recipes import RECIPES
from lab.serving import unpacked

VIEW = {"n": 8, "steps": 3}
SQUARE = {"frame": [[-3, 3], [-2, 2]], "sides": [6, 4]}


def ask(lab, name, **fields):
    header, arrays = unpacked(answer(lab, json.dumps({"id": 5, "do": name, **fields})))
    assert header["id"] == 5
    return header, arrays


def refused(lab, name, **fields):
    return ask(lab, name, **fields)[0]["error"]


def test_a_page_begins_with_the_runs_and_tables(lab):
    header, _ = ask(lab, "about")
    assert [run["key"] for run in header["runs"]] == ["moons", "noisy", "spirals", "digits", "policy"]
    assert header["runs"][0] | {"name": ""} == header["runs"][0] | {"name": "", "kind": "points", "columns": ["x", "y"]}
    assert header["runs"][0]["levels"] == []  # of no table
    assert header["runs"][2]["classes"] == ["first", "second"]
    assert [run["colour"] for run in header["runs"]] == ["flow", "diffusion", "flow", "flow", "flow"]
    assert header["samplers"]["ddim"] == {"eta": True, "noise": False, "spans": False}
    assert "two_moons" in header["sets"]
    assert "point_mass" not in header["sets"]


def test_samples_are_sent_with_the_noise_first(lab):
    header, arrays = ask(lab, "sample", run="moons", **VIEW)
    assert (header["do"], header["steps"], len(header["times"])) == ("sample", 3, 4)
    assert arrays["frames"].shape == (4, 8, 2)
    want = lab.run("moons").trained.sample(8, steps=3).numpy()
    np.testing.assert_allclose(arrays["frames"][-1], want, atol=1e-6)
    assert ask(lab, "sample", run="moons", columns=[1], **VIEW)[1]["frames"].shape == (4, 8, 1)


def test_a_view_is_judged_without_sampling_it_again(lab, monkeypatch):
    ask(lab, "sample", run="moons", n=60, steps=3)
    run, calls = lab.run("moons"), []
    hook = run.trained.denoiser.network.register_forward_pre_hook(lambda *_: calls.append(1))
    header, _ = ask(lab, "judge", run="moons", n=60, steps=3)
    hook.remove()
    assert header["distances"][0]["name"] == "energy distance"
    assert header["solver"] > 0
    assert len(calls) == 4 * sampling.FINE - 1  # the exact flow alone
    assert ask(lab, "judge", run="digits", **VIEW)[0]["distances"] == []


def test_real_data_field_and_way(lab):
    header, arrays = ask(lab, "real", run="moons", columns=[0, 1])
    assert header["limits"] == [[-3.5, 3.5]] * 2
    assert arrays["real"].shape == (2000, 2)
    _, arrays = ask(lab, "field", run="moons", t=0.5, **SQUARE)
    assert arrays["speed"].shape == (24, 2)
    corner = torch.tensor([[-2.5, -1.5]])
    want = sampling.field_at(lab.run("moons").trained, sampling.View(), 0.5, corner)
    np.testing.assert_allclose(arrays["speed"][0], want[0], atol=1e-5)
    header, arrays = ask(lab, "encode", run="moons", point=[1, 0])
    np.testing.assert_allclose(arrays["way"][-1], [1, 0], atol=1e-3)
    assert refused(lab, "encode", run="moons", point=[1]) == (
        "point must have 2 numbers, one for each column; got 1."
    )  # fmt: skip


def test_images_are_swept_filled_in_and_interpolated(lab, monkeypatch):
    monkeypatch.setattr("ebbtide.lab.images.FILLING", 6)
    monkeypatch.setattr("ebbtide.kinds.images.pages.STEPS", 4)
    how = {"run": "digits", "n": 3, "steps": 2}
    header, arrays = ask(lab, "sample", **how)
    assert arrays["frames"].shape == arrays["guesses"].shape == (3, 3, 1, 8, 8)
    assert arrays["frames"].dtype == np.uint8
    header, arrays = ask(lab, "sweep", **how)
    assert arrays["images"].shape == (len(header["weights"]), 10, 1, 8, 8)
    known = [1] * 32 + [0] * 32
    _, filled = ask(lab, "inpaint", index=1, known=known, **how)
    np.testing.assert_array_equal(filled["image"], ask(lab, "sample", **how)[1]["frames"][-1][1:2])
    assert (
        np.abs(filled["ways"][:, :, :4].astype(int) - filled["image"][:, :, :4].astype(int)).max() < 40
    )  # six steps leave some noise
    assert filled["ways"][:, :, 4:].std(0).max() > 0
    _, arrays = ask(lab, "between", pair=[0, 2], **how)
    assert arrays["images"].shape == (9, 1, 8, 8)
    assert refused(lab, "inpaint", index=1, known=[1] * 64, **how).startswith("Paint over some of the image")
    assert (
        refused(lab, "inpaint", index=1, known=[1], **how) == "known must have 64 entries, one for each pixel; got 1."
    )
    assert refused(lab, "between", pair=[0, 3], **how) == "index must be at least 0 and at most 2; got 3."
    assert refused(lab, "sweep", run="moons") == "moons is no run on images."
    assert "at least 1 and at most 64" in refused(lab, "sample", run="digits", n=65)


def test_a_policy_fans_out_over_what_was_done(lab):
    header, arrays = ask(lab, "fan", run="policy", place=3, n=5)
    assert (header["columns"], header["evaluations"]) == (["target_x", "target_y"], 2)
    assert arrays["chunks"].shape == (5, 16, 2)
    assert arrays["recorded"].shape == (16, 2)
    assert header["ms"] > 0
    assert refused(lab, "sample", run="policy", n=5).startswith("A policy's samples are chunks")


def test_data_is_shown_before_it_is_learned(lab):
    header, arrays = ask(lab, "data", data="two_spirals")
    assert (header["classes"], arrays["real"].shape) == (2, (2000, 2))
    assert ask(lab, "data", data="digits")[1]["images"].shape == (16, 1, 8, 8)
    assert "name any other to the command, as --data" in refused(lab, "data", data="/etc/passwd")


@pytest.mark.parametrize("points", [[], [[0, 0]], [[1, 2]] * 300])
def test_too_few_painted_points_are_a_sentence(lab, points):
    said = refused(lab, "train", methods=["flow"], points=points, steps=10)
    assert said.startswith("Paint at least 20 different points, so that there is something to learn; got ")
    assert lab.learners == []


BAD = [
    ({"do": "sample", "run": "nothing"}, "run must be one of"),
    ({"do": "sample"}, "The field 'run' is missing."),
    ({"do": "dance"}, "do must be one of about, sample"),
    ({"do": None}, "do must be one of about, sample"),
    ({"do": "sample", "run": "moons", "n": 0}, "n must be at least 1 and at most 20000; got 0."),
    ({"do": "sample", "run": "moons", "n": 1e300}, "n must be a whole number"),
    ({"do": "sample", "run": "moons", "n": True}, "n must be a whole number"),
    ({"do": "sample", "run": "moons", "guidance": float("nan")}, "guidance must be at least -20 and at most 20"),
    ({"do": "sample", "run": "moons", "guidance": 2.0}, "Guidance needs a label"),
    ({"do": "sample", "run": "moons", "label": "red"}, "This run was trained without labels"),
    ({"do": "sample", "run": "moons", "sampler": "os:system"}, "sampler must be one of"),
    ({"do": "sample", "run": "moons", "sampler": "jump"}, "jump needs a denoiser that spans two times"),
    ({"do": "sample", "run": "moons", "grid": "1,0.5,0"}, "grid must be one of"),
    ({"do": "sample", "run": "moons", "columns": [7], "n": 5, "steps": 2}, "a column must be at least 0 and at most"),
    ({"do": "sample", "run": "moons", "columns": "xy"}, "columns must be a list"),
    ({"do": "sample", "run": "moons", "colour": "red"}, "There is no field 'colour'"),
    ({"do": "field", "run": "moons", "t": 0, "frame": [[3, -3], [0, 1]], "sides": [4, 4]}, "frame must be [[low"),
    (dict(do="field", run="moons", t=2, **SQUARE), "t must be at least 0 and at most 1; got 2."),
    ({"do": "keep", "key": "moons", "folder": "a"}, "There is no method that learns to choose; got 'moons'."),
    ({"do": "train", "methods": ["flow"], "data": "digits", "steps": 5}, "A method must be one of ddpm-images"),
    ({"do": "train", "methods": [], "data": "two_moons", "steps": 5}, "methods, its length, must be at least 1"),
    ({"do": "train", "methods": ["flow"], "points": [[0, float("inf")]], "steps": 5}, "points[0][1] must be at least"),
    ([1, 2], "A message must be a dict; got [1, 2]."),
    (None, "A message must be a dict; got None."),
]  # fmt: skip


def test_what_can_t_be_is_one_sentence(lab):
    for message, want in BAD:
        header, _ = unpacked(answer(lab, json.dumps(message)))
        assert header["error"].startswith(want), (message, header)
        assert header["error"].endswith((".", ")"))
        assert "shouldn't have happened" not in header["error"]


@pytest.mark.parametrize("place", ["/tmp/a", "../a", "a/../b", "", "~/a", "a\0b", "a//b", "x" * 201, "runs/né\n"])
def test_a_run_is_kept_below_the_working_directory_alone(lab, place):
    lab.learners = [type("Learner", (), {"key": "one"})()]
    assert "folder" in refused(lab, "keep", key="one", folder=place)


def hostile(draw, names):
    """A message that nobody should send."""
    odd = [
        None, True, -1, 0, 1, 10**400, -(2**63), 1e308, float("nan"), float("inf"), "", "x" * 500, "\ud800", "0",
        [], [[]], [float("nan")] * 2, [[0, 0]] * 3, {"a": 1}, "__import__('os')", "../../x", "heun:steps=1e9", [1] * 64,
    ]  # fmt: skip
    kind = draw.randrange(6)
    if kind == 0:
        return draw.randbytes(draw.randrange(200))
    if kind == 1:
        return draw.randbytes(draw.randrange(200)).decode("latin-1")
    if kind == 2:
        return draw.choice(
            ["[" * 100_000, "{" * 5000, "9" * 10_000, '{"do":', "null", "\0", '{"id":1e999,"do":"about"}']
        )
    fields = {name: draw.choice(odd) for name in draw.sample(names, draw.randrange(len(names)))}
    do = draw.choice([*ACTIONS, draw.choice(odd)])
    run = draw.choice(["moons", "digits", "policy", draw.choice(odd)])
    return json.dumps({"id": draw.choice([1, *odd]), "do": do, "run": run, **fields})


def test_a_thousand_hostile_messages_are_answered_each(lab, monkeypatch):
    """No crash, a frame for each; nothing is trained or kept, and no sampling takes long."""
    monkeypatch.setattr(sampling, "MOST_WORK", 3000)
    monkeypatch.setattr(session, "begun_with", lambda *_: pytest.fail("something was trained"))
    names = sorted({name for row in ACTIONS.values() for name in row.fields} | set(session._VIEW) | {"extra"})
    draw, answered = random.Random(0), 0
    for _ in range(1000):
        message = hostile(draw, names)
        is_light(message)
        header, _ = unpacked(answer(lab, message))
        said = header.get("error")
        assert said is None or ("\n" not in said and "shouldn't have happened" not in said and len(said) > 10), (
            message,
            said,
        )
        answered += said is not None
    assert answered > 900
    assert lab.learners == []


def test_a_bug_of_ours_is_a_sentence_too(lab, monkeypatch):
    monkeypatch.setitem(ACTIONS, "about", session.Action(lambda lab: 1 / 0, views=False))
    assert (
        refused(lab, "about") == "That can't be done, and shouldn't have happened: ZeroDivisionError: division by zero."
    )


def test_what_takes_no_time_needn_t_wait():
    assert [is_light(json.dumps({"do": name})) for name in ("pause", "about", "sample", "sweep")] == [1, 1, 0, 0]
    assert is_light(b"\x00")


class _Still:
    """A learner that doesn't learn."""

    trained = recipe = None
    state, step, error, left, kept, painted = "paused", 3, "", None, None, None

    def __init__(self, key, name, recipe):
        self.key, self.name, self.recipe, self.heard = key, name, recipe, []

    def go(self):
        self.heard.append("go")

    def pause(self):
        self.heard.append("pause")

    def stop(self):
        self.heard.append("stop")

    def close(self):
        self.heard.append("close")

    def now(self):
        return self.trained

    def losses(self):
        return [(1, 0.5)]


@pytest.mark.unchecked
def test_methods_are_trained_side_by_side_and_forgotten(lab, monkeypatch):
    made = []

    def begun(names, data, painted, steps, conditional, first):
        asked = (data, None if painted is None else tuple(painted.shape), steps, conditional)
        found = [_Still(f"learner-{k}", name, RECIPES[name]()) for k, name in enumerate(names, first)]
        for one in found:
            one.trained = lab.run("moons").trained
        made.append((asked, found))
        return found

    monkeypatch.setattr(session, "begun_with", begun)
    header, _ = ask(lab, "train", methods=["ddpm", "flow"], data="two_moons", steps=40)
    asked, first = made[0]
    assert asked == ("two_moons", None, 40, False)
    assert [(one["name"], one["losses"]) for one in header["learners"]] == [("ddpm", [[1, 0.5]]), ("flow", [[1, 0.5]])]
    ask(lab, "pause")
    ask(lab, "go")
    ask(lab, "train", methods=["flow"], points=[[k, k * k] for k in range(30)], steps=5, conditional=False)
    assert [one.heard for one in first] == [["go", "pause", "go", "stop", "close"]] * 2
    assert made[1][0] == ("", (30, 2), 5, False)
    assert [run for run in lab.runs if run.startswith("learner")] == [made[1][1][0].key]


def test_a_lab_that_has_ended_begins_nothing_more(lab, monkeypatch):
    """A page may ask for training while Ctrl-C ends the lab; its process would then keep the command from ending."""
    one = _Still("learner-0", "flow", RECIPES["flow"]())
    one.close = lambda: one.heard.append(len(lab.learners))
    lab.learners = [one]
    lab.close()
    assert one.heard == ["stop", 0]  # out of a page's reach before it is closed
    monkeypatch.setattr(session, "begun_with", lambda *_: pytest.fail("something was trained"))
    assert refused(lab, "train", methods=["flow"], data="two_moons", steps=5) == "The lab has ended."


def test_numbers_that_are_not_finite_are_null_for_a_page(lab):
    """JSON has no word for them, and a page that can't read an answer waits for it."""
    with torch.no_grad():
        for part in lab.run("moons").opened.denoiser.parameters():
            part.mul_(1e12)
    for name, field in (("sample", "straightness"), ("judge", "solver")):
        frame = answer(lab, json.dumps({"do": name, "run": "moons", "n": 5, "steps": 2}))
        text = frame[4 : 4 + int.from_bytes(frame[:4], "little")]
        assert json.loads(text, parse_constant=pytest.fail)[field] is None


def test_data_that_can_t_be_learned_is_refused_before_a_page_is_served():
    for data in ("nothing.csv", "two_moon"):
        with pytest.raises(EbbtideError):
            session.learnable(data)
    session.learnable("two_moons")
    session.learnable("digits")
    assert learning.FEWEST == 20
    assert Lab().about()["runs"] == []
