"""`demos`."""

import numpy as np
import pytest

from ebbtide.cli import demos
from ebbtide.robots import demonstrations
from ebbtide.signals import Interrupted
from interrupting import at_every_line


def test_writes_what_a_policy_learns_from(ebbtide, tmp_path):
    code, out, err = ebbtide("demos", "aloha-transfer", "--episodes", "1", "--out", "new/cube.npz", "-q")
    assert (code, err) == (0, "")
    assert out == "1 of 1 attempts succeeded (100%): 330 steps in new/cube.npz\n"
    with np.load(tmp_path / "new" / "cube.npz", allow_pickle=False) as data:
        arrays = dict(data)
    assert set(arrays) == {"state", "action", "episode_ends", "fps", "tasks", "state_names", "action_names"}
    assert (arrays["state"].shape, arrays["action"].shape) == ((330, 21), (330, 14))
    assert arrays["state"].dtype == arrays["action"].dtype == np.float32
    assert (arrays["episode_ends"].tolist(), arrays["fps"]) == ([330], 50)
    assert [*arrays["state_names"][:14]] == [*arrays["action_names"]]

    written = (tmp_path / "new" / "cube.npz").read_bytes()
    again = ("demos", "aloha-transfer", "--episodes", "1", "--out", "new/cube.npz", "--quiet")
    assert ebbtide(*again) == (2, "", "ebbtide: new/cube.npz exists; --overwrite replaces it.\n")
    assert ebbtide(*again, "--overwrite")[0] == 0
    assert (tmp_path / "new" / "cube.npz").read_bytes() == written
    assert ebbtide(*again, "--overwrite", "--seed", "1")[0] == 0
    assert (tmp_path / "new" / "cube.npz").read_bytes() != written
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["cube.npz"]


def test_a_signal_at_any_line_is_answered_by_what_is_on_the_disk(tmp_path, monkeypatch, capsys):
    def collect(*_, **__):
        return {"state": np.zeros((3, 1))}, 1

    monkeypatch.setattr(demonstrations, "collect", collect)
    said = set()
    for answer in at_every_line(
        {demos.run, collect},
        lambda: demos.run(["aloha-transfer", "--episodes", "1", "--out", str(tmp_path / "a.npz"), "--overwrite"]),
    ):
        assert isinstance(answer, Interrupted)
        said.add(str(answer))
        if "nothing is written" in str(answer):
            assert not (tmp_path / "a.npz").exists()
    assert said == {"Stopped by SIGTERM.", "Stopped by SIGTERM; nothing is written."}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "is missing"),
        (["aloha"], "must be one of"),
        (["aloha-transfer", "--episodes", "0"], "--episodes must be at least 1 and at most 1000000; got 0."),
        (["aloha-transfer", "--episodes", "x"], "--episodes must be a whole number; got 'x'."),
        (["aloha-transfer", "--workers", "0"], "--workers must be at least 1 and at most 1024; got 0."),
        (["aloha-transfer", "--seed", "-1"], "--seed must be at least 0; got -1."),
        (["aloha-transfer", "--out", "cubes.csv"], "--out must be a .npz file; got 'cubes.csv'."),
        (["aloha-transfer", "--out", "a.npz"], "a.npz is a folder."),
        (["aloha-transfer", "--out", "a.npz/../b.npz/c.npz"], "b.npz"),
    ],
)
def test_one_sentence(ebbtide, tmp_path, arguments, sentence):
    (tmp_path / "a.npz").mkdir()
    (tmp_path / "b.npz").write_text("")
    code, out, err = ebbtide("demos", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("ebbtide: ")
    assert sentence in err
    assert err.count("\n") == 1
