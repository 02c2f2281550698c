"""How a run is trained, as it is stored; and what tells its data from other data."""

import json
import shutil

import pytest
import torch

from ebbtide.data.prepared import TensorData
from ebbtide.errors import InputError
from ebbtide.files import dump_json
from ebbtide.kinds.runs import begin, from_pretrained
from ebbtide.training import checkpoint
from ebbtide.training.settings import data_fingerprint, how, resumed_by, same
from training.runs import STEPS, newest, run, tiny


def test_data_is_itself_and_nothing_else():
    """Another machine's last bits are no other data; a value moved, two rows swapped, or a type is."""
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    of = lambda x, labels=None: data_fingerprint(TensorData(x, labels))
    assert same(of(x), of(x * (1 + 1e-7)))
    for other in (x.flip(0), x[:49], torch.cat([x, x[:1]]), x.reshape(75, 2), x.index_fill(0, torch.tensor(7), 0.5)):
        assert not same(of(x), of(other))
    gaps = x.clone()
    gaps[3, 1] = gaps[20, 0] = torch.nan
    moved = gaps.clone()
    moved[3, 1], moved[4, 1] = 0.0, torch.nan
    assert same(json.loads(dump_json(of(gaps))), of(gaps * (1 + 1e-7)))
    for other in (x, gaps.nan_to_num(), moved, gaps.index_fill(0, torch.tensor(7), 0.5)):
        assert not same(of(gaps), of(other))
    labels = torch.arange(50) % 2
    assert same(of(x, labels), of(x, labels.clone()))
    assert not same(of(x, labels), of(x, 1 - labels))
    assert not same(of(x, labels), of(x))
    pixels = (x * 50).to(torch.uint8)
    assert not same(of(pixels), of(pixels.roll(1, 1)))


@pytest.mark.parametrize(
    "stored", [[], {"how": 1}, {"how": {"keep": "2"}}, {"how": {"keep": True}}, {"how": {"no": 1}}]
)
def test_settings_that_are_none_are_refused(stored):
    with pytest.raises(InputError, match=r"running\.json is damaged"):
        how(stored, "run")


def test_a_run_without_settings_has_none():
    assert how({}, "run") == {}


def test_what_a_run_was_made_by_is_stored_and_leaves_without_paths(tmp_path):
    """The command, versions, device, precision and the data's fingerprint; the same after a stop as without one."""
    run(tiny(), tmp_path / "one", command="ebbtide train flow --data secret/place")
    trained = from_pretrained(tmp_path / "one")
    made = trained.made
    assert made["command"] == "ebbtide train flow --data secret/place"
    assert (made["device"], made["precision"]) == ("cpu", "no")
    assert (made["versions"]["torch"], sorted(made["versions"])) == (
        torch.__version__,
        ["accelerate", "numpy", "python", "torch"],
    )
    assert same(made["data"], data_fingerprint(begin(tiny())[1]))
    shared = json.loads(trained.export("x")["config.json"])["made"]
    assert sorted(shared) == ["device", "precision", "versions"]
    shutil.rmtree(newest(tmp_path / "one"))
    run(tiny(), tmp_path / "one", resume=True, command="ebbtide resume one")
    assert from_pretrained(tmp_path / "one").made == made


def test_a_run_that_goes_on_elsewhere_says_so(tmp_path, monkeypatch):
    run(tiny(), tmp_path / "run")
    before = from_pretrained(tmp_path / "run").made
    shutil.rmtree(newest(tmp_path / "run"))
    monkeypatch.setattr("platform.python_version", lambda: "9.9.9")
    run(tiny(), tmp_path / "run", resume=True, command="ebbtide resume run")
    made = from_pretrained(tmp_path / "run").made
    (one,) = made["resumed"]
    assert (one["step"], one["command"], one["versions"]["python"]) == (STEPS * 3 // 4, "ebbtide resume run", "9.9.9")
    assert {name: part for name, part in made.items() if name != "resumed"} == before
    assert resumed_by(made, {**before, **one}, 11) == made
    assert len(resumed_by(made | {"resumed": [one] * 30}, before, 11)["resumed"]) == 20


def test_a_run_of_an_older_version_has_none(tmp_path):
    run(tiny(), tmp_path / "run")
    for folder in (tmp_path / "run" / "checkpoints").glob("step-*"):
        files = checkpoint.read_folder(folder)
        config = json.loads(files["config.json"])
        del config["made"]
        checkpoint.write_folder(folder, files | {"config.json": dump_json(config)})
    assert from_pretrained(tmp_path / "run").made == {}
    shutil.rmtree(newest(tmp_path / "run"))
    assert run(tiny(), tmp_path / "run", resume=True).made == {}
