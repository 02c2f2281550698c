"""Sets on the disk: each task of the benchmark runs, and prints what its table is made of."""

import pytest

from benchmarks import scale


@pytest.mark.parametrize("what", ["images", "episodes"])
def test_every_task_is_measured(tmp_path, monkeypatch, what):
    monkeypatch.setenv("EBBTIDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scale, "STEPS", 30)
    subject = scale.SUBJECTS[what]
    network = next(iter(subject.networks))
    subject = subject._replace(networks={network: 4})
    for task in ("make", "decode", "prepare", *scale.WAYS):
        spent = scale.alone(subject, task, tmp_path / what, 20)
        assert spent.keys() == {"seconds", "cpu", "before", "after"}
        assert spent["after"] >= spent["before"] > 0
    assert len(list((tmp_path / "cache").glob("*/0*.safetensors"))) == {"images": 1, "episodes": 2}[what]
    (made,) = scale.rates(subject, tmp_path / what, 2, 0.1)
    assert made[0] == network
    assert all(len(made[1][way]) == 2 and min(map(min, made[1][way])) > 0 for way in scale.WAYS)
