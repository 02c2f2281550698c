"""The benchmark of the U-Net runs, at the smallest size."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from benchmarks import unet
from ebbtide.errors import InputError

TINY = unet.Plan((unet.DEFAULT, unet.Row("ebbtide", last=True)), "tiny", batch=2, repeats=2, memory=False)


@pytest.mark.parametrize("row", [*TINY.rows, unet.Row("ebbtide"), unet.Row("ebbtide", native=False)])
def test_every_row_is_the_same_function_and_learns(row: unet.Row) -> None:
    started = unet.networks("tiny")
    expected = unet.Contender(unet.DEFAULT, started["diffusers"], TINY).sampling()
    contender = unet.Contender(row, started[row.library], TINY)
    y = contender.sampling()
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    contender.training()
    assert not torch.equal(contender.sampling(), y)


def test_bf16_is_the_same_but_for_rounding() -> None:
    started = unet.networks("tiny")
    single, half = (unet.Contender(unet.Row("ebbtide", bf16=bf16), started["ebbtide"], TINY) for bf16 in (False, True))
    error = (single.sampling() - half.sampling()).abs().max() / single.sampling().abs().max()
    assert 1e-6 < error < 0.1


def test_two_rows_are_measured_and_reported() -> None:
    results = unet.measure(TINY)
    assert results.ratio["diffusers"] == {"training": 1, "sampling": 1}
    assert results.error["ebbtide, channels_last"] < 1e-4
    json.dumps(asdict(results))
    text = unet.report(results, "command")
    assert "| ebbtide, channels_last |" in text
    assert "nan" not in text


def test_the_summary_is_beside_the_default_and_the_best() -> None:
    rows = (unet.DEFAULT, unet.Row("diffusers", last=True), unet.Row("ebbtide"), unet.Row("ebbtide", last=True))
    ratio = {row.name: dict.fromkeys(unet.MODES, value) for row, value in zip(rows, (1.0, 2.0, 3.0, 1.5))}
    results = unet.Results(replace(TINY, rows=rows), 1, ratio=ratio)
    (text, _) = unet.summary(results)
    assert "In training ebbtide is 3.00 × as fast as diffusers' default and 1.50 × as its best" in text
    assert text.endswith("its best, diffusers, channels_last.")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's peak")
def test_memory_is_that_of_a_process_of_its_own() -> None:
    """However much this one has had: 128 MiB don't show there, where 64 images take more than 4 maps of 2 MiB."""
    torch.ones(2**25)
    assert 8 < unet.peak(unet.Row("ebbtide"), replace(TINY, batch=64)) < 1000


def test_variants_are_made_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unet.fused, "native", lambda: True)
    for fast, compiled, count in ((False, False, 4), (True, False, 7), (True, True, 13)):
        monkeypatch.setattr(unet.fused, "fast_bf16", lambda device, fast=fast: fast)
        rows = unet.rows("cpu", compiled)
        assert len({row.name for row in rows}) == len(rows) == count
        assert rows[0] == unet.DEFAULT
        assert any(row.bf16 for row in rows) == fast


def test_a_wrong_batch_is_named() -> None:
    with pytest.raises(InputError, match="--batch must be at least 1; got 0"):
        unet.main(["--batch", "0"])
