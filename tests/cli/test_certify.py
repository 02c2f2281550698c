"""`certify`: a row a sampler and path, exit code 5 where a promise isn't kept, one's own functions, one sentence."""

import json
import re

import pytest

from ebbtide.kinds.runs import train_recipe
from ebbtide.networks.mlp import MLP
from ebbtide.recipes import flow
from ebbtide.samplers import SAMPLERS
from ebbtide.samplers.ddim import ddim

MINE = """
from ebbtide.errors import InputError
from ebbtide.samplers.ddim import ddim


def walk(walk):
    yield from ddim(walk)


def declared(walk):
    yield from ddim(walk)


declared.order = 2


def lazy(walk):
    for _ in walk.steps:
        yield walk.x


def breaks(walk):
    yield walk.x + walk.x.new_ones(7)


def refuses(walk):
    raise InputError("refuses: not today.")
    yield walk.x


def returns(walk):
    return walk.x


def nothing(walk):
    for _ in walk.steps:
        yield None


def short(walk):
    yield walk.x


number = 3
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Fewer steps; what is promised stays the same."""
    monkeypatch.setattr("ebbtide.exact.certify.STEP_COUNTS", (40, 80))
    monkeypatch.setattr("ebbtide.exact.certify.BUDGETS", (10, 20))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module in the working directory that no other test has imported."""
    monkeypatch.delitem(__import__("sys").modules, "samplers_of_mine", raising=False)
    (tmp_path / "samplers_of_mine.py").write_text(MINE)
    return lambda function: f"samplers_of_mine:{function}"


def row(out, spec):
    """The line of a sampler: (path, orders, the rest, kept, judged)."""
    (line,) = [line for line in out.splitlines() if line.startswith(f"{spec} ")]
    path, orders, *rest, kept = line[len(spec) :].split()
    return path, [float(order) for order in orders.split("/") if order != "-"], rest, *map(int, kept.split("/"))


def test_a_row_with_every_check_kept_and_a_file_of_them(ebbtide, tmp_path):
    code, out, err = ebbtide("certify", "euler", "--path", "linear", "--json", "found.json")
    assert (code, "Error" in err) == (0, False)
    assert out.splitlines()[0].split()[:3] == ["sampler", "path", "order"]
    path, orders, rest, kept, judged = row(out, "euler")
    assert path == "linear"
    assert orders == pytest.approx([1, 1], abs=0.05)
    assert kept == judged >= 5  # two orders, two RMS, the same as ddim
    assert out.splitlines()[-1] == f"1 certificate, {judged} checks: all kept."
    checks = json.loads((tmp_path / "found.json").read_text())
    assert list(checks) == ["euler"]
    assert [check["passed"] for check in checks["euler"]] == [True] * judged
    assert {check["path"] for check in checks["euler"]} == {"linear"}
    names = [check["name"] for check in checks["euler"]]
    assert names[:5] == ["order, even grid", "order, uneven grid", "RMS at 10", "RMS at 20", "same as ddim"]
    assert f"{checks['euler'][2]['found']:.1e}" == rest[0]


def test_a_row_for_each_sampler_and_path_and_every_check_on_demand(ebbtide):
    code, out, _ = ebbtide("certify", "ddim", "predictor_corrector:corrections=0", "--path", "ve", "--verbose")
    assert code == 0
    for spec in ("ddim", "predictor_corrector:corrections=0"):
        assert [line.split()[1] for line in out.splitlines() if line.startswith(f"{spec} ")] == ["ve"]
    assert len(re.findall(r"^    kept: RMS at 20: ", out, re.M)) == 1
    assert len(re.findall(r"^    kept: bias of the std at 200 steps", out, re.M)) == 1
    assert len(re.findall(r"^    kept: sliced W₂ at 200 steps: .*\(floor ", out, re.M)) == 1
    assert out.splitlines()[-1].startswith("2 certificates, ")
    code, out, _ = ebbtide("certify", "ddim", "--path", "linear", "ve")
    assert [line.split()[1] for line in out.splitlines() if line.startswith("ddim ")] == ["linear", "ve"]


def test_what_is_not_there_says_so_in_the_file(ebbtide, tmp_path):
    """An order that a tolerance rules is no number: null, not NaN, which isn't JSON."""
    assert ebbtide("certify", "dopri5", "--path", "linear", "--json", "found.json")[0] == 0
    text = (tmp_path / "found.json").read_text()
    first = json.loads(text)["dopri5"][0]
    assert (first["found"], first["passed"]) == (None, None)
    assert "NaN" not in text


@pytest.mark.parametrize("given", [("walk", "--order", "2"), ("declared",)], ids=["by option", "by the function"])
def test_an_order_that_is_not_kept_is_exit_code_5(ebbtide, own, given):
    """DDIM has order 1."""
    code, out, err = ebbtide("certify", own(given[0]), *given[1:], "--path", "linear")
    assert code == 5
    assert row(out, own(given[0]))[1] == pytest.approx([1, 1], abs=0.05)
    assert len(re.findall(r"^    FAILED: order, (even|uneven) grid: ", out, re.M)) == 2
    assert "all kept" not in out
    assert err.endswith("ebbtide: 1 of 1 certificates failed; see the lines above.\n")


@pytest.mark.parametrize("order", [(), ("--order", "1")])
def test_an_order_that_is_kept_or_not_declared_is_exit_code_0(ebbtide, own, order):
    code, out, _ = ebbtide("certify", own("walk"), *order, "--path", "linear")
    assert code == 0
    assert out.splitlines()[-1].endswith(": all kept.")
    assert row(out, own("walk"))[3] == (4 if order else 2)


def test_a_function_that_breaks_is_not_certified(ebbtide, own):
    code, out, _ = ebbtide("certify", own("breaks"), "--path", "linear")
    assert code == 5
    assert re.search(r"FAILED: runs \(RuntimeError: ", out)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("returns", "the sampler's result must be an Iterator; got "),
        ("nothing", "A sampler must yield x after every step, of shape (2, 2); samplers_of_mine:nothing doesn't."),
        ("short", "A sampler must yield x after every step, of shape (2, 2); samplers_of_mine:short doesn't."),
    ],
)
@pytest.mark.parametrize("given", [(), ("--order", "1"), ("--stochastic",)], ids=["plain", "order", "stochastic"])
def test_what_is_no_sampler_is_refused_as_in_sampling(ebbtide, own, name, sentence, given):
    code, _, err = ebbtide("certify", own(name), *given, "--path", "linear")
    (line,) = [line for line in err.splitlines() if line.startswith("ebbtide: ")]
    assert (code, line.startswith(f"ebbtide: There is nothing to certify in {own(name)}, which refuses: ")) == (2, True)
    assert sentence in line


def test_a_function_in_the_table_is_certified_with_the_order_that_is_declared(ebbtide, own, monkeypatch):
    monkeypatch.setitem(SAMPLERS, "x", lambda walk: ddim(walk))
    code, out, _ = ebbtide("certify", "x", "--order", "1", "--path", "linear")
    assert (code, row(out, "x")[3:]) == (0, (4, 4))
    assert out.splitlines()[-1] == "1 certificate, 4 checks: all kept."
    assert ebbtide("certify", "x", "--order", "2", "--path", "linear")[0] == 5
    code, out, _ = ebbtide("certify", "x", "--path", "linear", "--verbose")
    assert code == 0
    assert len(re.findall(r"does not apply: order, (even|uneven) grid \(no order was declared\)", out)) == 2
    assert out.splitlines()[-1] == "1 certificate, 2 checks: all kept."  # those in its row
    assert row(out, "x")[3:] == (2, 2)


def test_a_function_that_does_nothing_is_not_certified(ebbtide, own):
    assert ebbtide("certify", own("lazy"), "--order", "1", "--path", "linear")[0] == 5


def test_a_function_that_refuses_everything_is_not_certified(ebbtide, own):
    code, _, err = ebbtide("certify", own("refuses"), "--path", "linear")
    assert code == 2
    assert "refuses: not today." in err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("eulr",), "sampler must be one of euler, heun"),
        (("diffusers:DDIMSchedular",), "diffusers"),  # no such scheduler, or no such package; no table was begun
        (("heun:clok=flow",), "sampler 'heun' has no option 'clok'"),
        (("euler", "--path", "lineal"), "--path must be one of"),
        (("euler", "--order", "-1"), "--order must be at least 0"),
        (("euler", "--order", "1"), "--order declares what a function of your own promises"),
        (("euler", "--stochastic"), "--stochastic declares what a function of your own promises"),
        (("euler", "--json", "."), "--json must be a file in a folder that exists; got '.'."),
        (("euler", "--json", "nowhere/x.json"), "--json must be a file in a folder that exists"),
        (("nowhere_at_all:walk",), "nowhere_at_all:walk can't be loaded: "),
        (("samplers_of_mine:none",), "samplers_of_mine:none can't be loaded: "),
        (("samplers_of_mine:number",), "samplers_of_mine:number is not a function."),
    ],
)
def test_what_can_not_be_is_one_sentence(ebbtide, own, given, says):
    code, out, err = ebbtide("certify", *given)
    assert (code, out) == (2, "")
    assert err.startswith("ebbtide: ")
    assert says in err
    assert err.count("\n") == 1


SPANNING = {
    "loss": "mean_flow", "sampler": "jump", "sample_steps": 1, "network": "mlp:width=8,depth=1,spans=true",
    "steps": 3, "batch": 16, "points": 100,
}  # fmt: skip
QUIET = {"progress": False, "snapshots": 0, "checkpoints": 1, "solvers": False}


class Heeding(MLP):
    """A network to which a span of nothing means something."""

    def __init__(self, dim, classes=0, width: int = 8):
        super().__init__(dim, classes=classes, width=width, depth=1, spans=True)

    def forward(self, x, t, label=None, span=None):
        return super().forward(x, t, label, span) + (0 if span is None else 0.01)


def spanning(folder, **fields):
    train_recipe(flow(**SPANNING | fields), folder, **QUIET)


@pytest.mark.parametrize("fields", [{}, {"data": "two_spirals", "conditional": True, "label_dropout": 0.0}])
def test_a_run_of_two_times_has_a_table_of_its_jumps(ebbtide, tmp_path, fields):
    """With the labels that it needs; only that an estimate toward its own time is the estimate has to hold."""
    spanning(tmp_path / "run", **fields)
    code, out, err = ebbtide("certify", "run", "--n", "40", "--json", "found.json", "--device", "auto")
    assert (code, err) == (0, "")
    first, itself, *others, key = out.splitlines()
    assert first.split() == ["run", "found", "promised"]
    assert re.fullmatch(r"u\(x, t, t\) = v +0 +0, to the bit +kept", itself)
    jumps = [f"{count} beside its own flow" for count in ("1 jump", "2 jumps", "4 jumps")]
    names = ["1 jump beside 2", "1 jump beside 4", *jumps]
    assert [re.split("  +", line)[::2] for line in others] == [[name, "measured"] for name in names]
    assert all(float(re.split("  +", line)[1]) > 0 for line in others)
    assert key.startswith("found: ")
    (checks,) = json.loads((tmp_path / "found.json").read_text()).values()
    assert [check["passed"] for check in checks] == [True, *[None] * 5]


def test_a_network_of_ones_own_is_certified_too(ebbtide, tmp_path, monkeypatch):
    from ebbtide.networks import NETWORKS

    name = f"{__name__}:Heeding"
    monkeypatch.setitem(NETWORKS, name, Heeding)
    spanning(tmp_path / "run", network=name)
    code, out, err = ebbtide("certify", "run", "--network", name, "--n", "40")
    assert (code, out.count("FAILED")) == (5, 1)
    assert err == "ebbtide: run: toward its own time an estimate isn't the estimate.\n"
    monkeypatch.delitem(NETWORKS, name)


def test_what_can_not_be_certified_of_a_run_is_one_sentence(ebbtide, runs, tmp_path):
    spanning(spans := tmp_path / "spans")
    (nothing := tmp_path / "nothing").mkdir()
    for given, says in (
        ((runs / "flow",), "has a network that spans a single time, so there are no jumps to certify."),
        ((runs / "flow", "--order", "2"), "--order is for samplers, and a run is none."),
        ((runs / "flow", "--path", "ve", "linear"), "--path must be the run's"),
        ((runs / "flow", "--n", "0"), "--n must be at least 1"),
        ((runs / "flow", "--data", "two_moons"), "data can't be named for"),
        ((nothing,), "manifest.json"),
        (("heun", "--n", "9"), "--n is for runs"),
        (("heun", "--data", "x.csv"), "--data is for runs"),
        (
            ("heun", "--device", "auto"),
            "--device is for runs; name the folder of one. Samplers are measured on the CPU",
        ),
        ((spans, "--device", "cuda:9"), "device must be one of auto, cpu"),
    ):
        code, out, err = ebbtide("certify", *given)
        assert (code, out) == (2, "")
        assert says in err
        assert err.count("\n") == 1
