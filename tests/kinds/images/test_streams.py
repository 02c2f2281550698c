"""Runs on streams: trained, resumed to the bit from where the stream was left, and measured by its first images."""

import json
import warnings
from dataclasses import replace

import pytest
import torch

from data.test_stream import png, tars
from ebbtide.cli import main
from ebbtide.data import stream as streams
from ebbtide.errors import InputError
from ebbtide.kinds.images.data import parts, prepare
from ebbtide.kinds.runs import from_pretrained
from ebbtide.recipes import RECIPES
from training.runs import assert_same, run, run_until, tensors

pytest.importorskip("datasets")
N, HELD = 120, 24


@pytest.fixture(scope="module", autouse=True)
def small():
    """Of a stream's first sixty images two fifths are held out; blocks of ten are shuffled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "HEAD", 60)
        patch.setattr("ebbtide.kinds.images.streams.HEAD", 60)
        patch.setattr(streams, "BUFFER", 10)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    return tars(folder, [png(k, (8, 8)) for k in range(N)], [k % 3 for k in range(N)], each=40)


def recipe(data, **changes):
    fields = {"data": data, "held_out": 0.4, "network": "unet-tiny:width=8", "batch": 8, "steps": 12, "seed": 3}
    return replace(RECIPES["flow-images"](), **fields | changes)


def test_a_stream_is_prepared_without_being_listed(data):
    prepared = prepare(recipe(data, conditional=True))
    assert prepared.shape == (1, 8, 8)
    assert prepared.classes == ("0", "1", "2")
    assert prepared.frequencies == pytest.approx((1 / 3,) * 3)
    batch = prepared.data.take(torch.arange(96), torch.Generator())
    values = (127.5 * (batch["x0"][:, 0, 0, 0] + 1)).round().long()
    assert torch.equal(values % 3, batch["label"])
    assert sorted(values[:90].tolist()) == [*range(HELD, 114)]
    for change, says in (
        ({"codec": "pixels+patches:size=2"}, "codec is for sets that can be listed, and wds:"),
        ({"factor": 2}, "factor is for sets"),
        ({"attributes": "a"}, "attributes is for sets"),
    ):
        with pytest.raises(InputError, match=says):
            prepare(recipe(data, **change))


def test_a_stopped_run_goes_on_from_where_the_stream_was(data, tmp_path, monkeypatch):
    """To the bit, and without reading the rows before: of 12 steps of 8, nine are behind it, 72 rows of the stream."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    run(recipe(data), whole)
    run_until(10, recipe(data), part, monkeypatch)
    state = json.loads(next((part / "checkpoints").glob("step-*09/running.json")).read_text())["stream"]
    assert (state["block"], state["row"], state["seed"]) == (7, 94, 3)
    read, own = [], streams.Stream._following
    monkeypatch.setattr(streams.Stream, "_following", lambda self: read.append(self._next) or own(self))
    run(recipe(data), part, resume=True)
    assert_same(tensors(whole), tensors(part))
    assert set(read) <= {0, 7, 8, 9, 10}  # the first block is looked at before a run begins


def test_first_images_stand_for_all(data, tmp_path, capsys):
    with pytest.warns(UserWarning, match=r"is a stream: its first 60 images stand for all, 24 of them held out\.$"):
        train, held = parts(recipe(data))
    assert held.x[:, 0, 0, 0].tolist() == [*range(HELD)]
    assert train.x[:, 0, 0, 0].tolist() == [*range(HELD, 60)]
    folder = tmp_path / "run"
    run(recipe(data, steps=2), folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["evaluate", str(folder), "--n", "12", "--steps", "1", "--sampler", "euler", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
    assert "against 36 of 36 training images" in rows[0]["note"]
    assert from_pretrained(folder).recipe.data == data


def test_a_stream_lies_nowhere(data, tmp_path):
    with pytest.raises(
        InputError, match=r"^data_on is for sets that can be listed, and these data are a stream; got 'disk'"
    ):
        run(recipe(data), tmp_path / "run", data_on="disk")


def test_another_stream_is_no_resumption(data, tmp_path, monkeypatch):
    run_until(4, recipe(data), tmp_path / "run", monkeypatch)
    file = tmp_path / "other"
    file.mkdir()
    other = tars(file, [png(255 - k, (8, 8)) for k in range(N)], [0] * N)
    with pytest.raises(InputError, match="was trained with data="):
        run(recipe(other), tmp_path / "run", resume=True)
