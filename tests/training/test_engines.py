"""Engines: which there are, and what each can train."""

from types import SimpleNamespace

import pytest

from ebbtide.errors import InputError
from ebbtide.losses import LOSSES
from ebbtide.training.engines import ENGINES, pick_engine, sharing
from training.runs import run, sentence, tiny


def test_a_process_alone_has_nobody_to_share_with(tmp_path):
    with pytest.raises(InputError, match=r"several with torchrun --nproc-per-node 2 .*\(--engine replicated\)") as it:
        run(tiny(), tmp_path / "run", engine="fsdp")
    sentence(it.value)
    assert not (tmp_path / "run").exists()


def test_losses_that_ask_a_whole_network_are_for_the_replicated_engine():
    """Those of which processes would not all make the same passes, or that hold further networks."""
    two, fits = SimpleNamespace(num_processes=2), ("denoise", "trajectory", "reflow")
    for name, loss in LOSSES.items():
        assert pick_engine("replicated", loss, name, two) is ENGINES["replicated"]
        if name in fits:
            assert pick_engine("fsdp", loss, name, two) is ENGINES["fsdp"]
            continue
        with pytest.raises(InputError, match=f"engine 'fsdp' can't train loss '{name}', which") as it:
            pick_engine("fsdp", loss, name, two)
        sentence(it.value)


def test_an_engine_is_one_of_the_table():
    with pytest.raises(InputError, match="engine must be one of replicated, fsdp; got 'ddp'"):
        pick_engine("ddp", LOSSES["denoise"], "denoise", SimpleNamespace(num_processes=2))


def test_weights_are_shared_among_torchruns_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert [sharing(name) for name in (*ENGINES, "none")] == [1, 4, 1]
