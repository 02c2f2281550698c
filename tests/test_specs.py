"""Specs: what is understood, and that whatever isn't becomes one sentence with a hint."""

import math
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import example, given, strategies as st

from cells import each
from ebbtide.core.paths import PATHS
from ebbtide.core.times import GRIDS
from ebbtide.errors import InputError
from ebbtide.specs import (
    Own,
    as_list,
    bind,
    expect,
    named_list,
    named_ranges,
    named_values,
    parse,
    pick,
    require,
    shaped,
    typed,
    with_option,
)  # fmt: skip


@dataclass(frozen=True)
class Slope:
    rise: float = 1.0
    steps: int = 10
    kind: str = "straight"
    both_ways: bool = False
    callback: object = None


def required(network, width: int = 64):
    return network, width


def apart(x, steps: int = 1, *, eta: float = 0.0):
    return x, steps, eta


TABLE = {"slope": Slope, "flat": lambda: None, "required": required, "apart": apart}


def refusal(function, *args):
    """The sentence an InputError says."""
    with pytest.raises(InputError) as caught:
        function(*args)
    return str(caught.value)


def is_one_sentence(text):
    return len(text.splitlines()) == 1 and text.endswith(".") and text == text.strip()


@pytest.mark.parametrize(
    ("spec", "name", "options"),
    [
        ("vp", "vp", {}),
        (" vp : beta_max = 10 ", "vp ", {"beta_max": 10}),
        ("vp:beta_max=10", "vp", {"beta_max": 10}),
        ("vp:beta_max=1e-2,beta_min=-.5", "vp", {"beta_max": 0.01, "beta_min": -0.5}),
        ("ddpm:betas=scaled_linear,steps=500,", "ddpm", {"betas": "scaled_linear", "steps": 500}),
        ("a:on=true,off=False", "a", {"on": True, "off": False}),
        ("a:text=x=y", "a", {"text": "x=y"}),
        ("a:when=12:30", "a", {"when": "12:30"}),
        ("a:empty=", "a", {"empty": ""}),
    ],
)
def test_parse_understands(spec, name, options):
    found_name, found = parse(spec)
    assert found_name.strip() == name.strip()
    assert found == options
    assert [type(value) for value in found.values()] == [type(value) for value in options.values()]


def test_parse_tells_an_integer_from_a_float():
    _, options = parse("a:i=3,f=3.0,e=3e0")
    assert [type(options[key]) for key in "ife"] == [int, float, float]


@pytest.mark.parametrize("spec", ["vp:10", "vp:a=1,b", "vp:,,x", "vp:", " vp: ,", "mine:bend:"])
def test_parse_refuses_what_is_no_option(spec):
    sentence = refusal(parse, spec)
    assert is_one_sentence(sentence)
    assert repr(spec) in sentence
    assert "key=value" in sentence


def test_the_name_of_a_function_outside_has_two_parts():
    assert parse("mine.nets:Net") == ("mine.nets:Net", {})
    assert parse("mine:Net:width=5,depth=2") == ("mine:Net", {"width": 5, "depth": 2})
    sentence = refusal(bind, PATHS, "vp:beta_max", "path")
    assert sentence == "In 'vp:beta_max', 'beta_max' is not an option; write name:key=value,key=value."
    assert "'mine:Bent' is a function outside ebbtide" in refusal(bind, PATHS, "mine:Bent:bend=2", "path")


def test_pick_returns_a_name_of_the_table():
    assert [pick(TABLE, name, "path") for name in TABLE] == list(TABLE)


def test_pick_guesses_what_was_meant():
    sentence = refusal(pick, TABLE, "slop", "path")
    assert sentence == "path must be one of slope, flat, required, apart; got 'slop' (did you mean 'slope'?)."
    assert refusal(pick, TABLE, "xyz", "path") == "path must be one of slope, flat, required, apart; got 'xyz'."


def test_pick_says_that_a_table_is_empty():
    with pytest.raises(InputError, match=r"There is no path to choose; got 'linear'\."):
        pick([], "linear", "path")


@pytest.mark.parametrize("name", ["", "Slope", "slope ", "__class__", "os.system", "ebbtide.core.paths.Linear"])
def test_pick_knows_no_names_but_the_tables(name):
    assert is_one_sentence(refusal(pick, TABLE, name, "path"))


@pytest.mark.parametrize(
    ("spec", "row"),
    [
        ("slope", Slope()),
        ("slope:rise=2", Slope(rise=2)),
        ("slope:rise=2.5,steps=3", Slope(rise=2.5, steps=3)),
        ("slope:kind=bent,both_ways=true", Slope(kind="bent", both_ways=True)),
        ("flat", None),
    ],
)
def test_bind_makes_the_row_with_its_options(spec, row):
    assert bind(TABLE, spec, "path")() == row


def test_bind_gives_floats_where_floats_are_asked_for():
    assert isinstance(bind(TABLE, "slope:rise=2", "path")().rise, float)
    assert "rise must be at most 1e+18 in size" in refusal(bind, TABLE, "slope:rise=1" + "0" * 400, "path")


@pytest.mark.parametrize(("table", "spec"), [(GRIDS, "trailing:table=" + "9" * 400), (PATHS, "bridge:spread=-1e308")])
def test_a_number_whose_square_is_none_is_refused(table, spec):
    sentence = refusal(bind, table, spec, "row")
    assert "must be at most 1e+18 in size; got" in sentence
    assert len(sentence) < 150


def test_bind_keeps_a_text_as_it_is_written():
    """The one level of a U-Net's multipliers is "1", and a folder may be called 007."""
    assert bind(TABLE, "slope:kind=007", "path")().kind == "007"


def test_bind_leaves_arguments_without_a_default_to_the_caller():
    assert bind(TABLE, "required:width=8", "network")("a network") == ("a network", 8)
    assert bind(TABLE, "apart:eta=1", "sampler")("x", 2) == ("x", 2, 1.0)
    assert "no option 'steps'; it takes eta." in refusal(bind, TABLE, "apart:steps=3", "sampler")
    assert "no option 'network'; it takes width." in refusal(bind, TABLE, "required:network=x", "network")


@each(
    ("spec", "words"),
    [
        ("slop:rise=2", "did you mean 'slope'?"),
        ("slope:raise=2", "path 'slope' has no option 'raise'; it takes rise, steps, kind, both_ways."),
        ("slope:callback=print", "has no option 'callback'"),
        ("slope:=2", "has no option ''"),
        ("flat:rise=2", "path 'flat' has no option 'rise'; it takes none."),
        ("slope:steps=2.5", "path 'slope': steps must be int; got 2.5."),
        ("slope:steps=true", "steps must be int; got True."),
        ("slope:rise=steep", "rise must be float; got 'steep'."),
        ("slope:rise=true", "rise must be float; got True."),
        ("slope:rise=", "rise must be float; got ''."),
        ("slope:both_ways=1", "both_ways must be bool; got 1."),
        ("slope:rise", "write name:key=value,key=value."),
    ],
)
def test_bind_says_in_one_sentence_what_is_wrong(spec, words):
    sentence = refusal(bind, TABLE, spec, "path")
    assert is_one_sentence(sentence)
    assert words in sentence


FLOATS = st.floats(allow_subnormal=False)  # torch is told to flush those, and Python's go with them
specs = st.one_of(
    st.text(),
    st.from_regex(r"(slope|slop|flat)(:[a-z_]{0,5}=?[-0-9a-z.,=:]{0,9})?", fullmatch=True),
    st.builds(
        "slope:{}={}".format,
        st.sampled_from(["rise", "steps", "kind", "both_ways"]),
        st.one_of(st.integers(), FLOATS, st.booleans(), st.text()),
    ),
)


@given(specs)
@example("slope:steps=" + "9" * 5000)
@example("slope:rise=nan")
@example("slope:\nrise\n=\n1\n")
@example("slope\u2028:rise=\ud800")
@example("\x00:\x00=\x00")
def test_any_text_is_a_row_or_one_sentence(spec):
    try:
        result = bind(TABLE, spec, "path")()
    except InputError as error:
        result = str(error)
    assert result is None or isinstance(result, Slope) or is_one_sentence(result)


@given(st.text(), st.lists(st.text(min_size=1), max_size=5))
def test_any_name_is_in_the_table_or_refused(name, table):
    try:
        assert pick(table, name, "path") in table
    except InputError:
        assert name not in table


@given(
    rise=FLOATS.filter(lambda x: abs(x) <= 1e18 or math.isinf(x)),
    steps=st.integers(-(10**18), 10**18),
    both_ways=st.booleans(),
    kind=st.from_regex(r"[g-m][g-z_]{0,8}", fullmatch=True).filter(lambda text: not math.isinf(_number(text))),
)
def test_what_is_written_is_what_is_read(rise, steps, both_ways, kind):
    spec = f"slope:rise={rise!r},steps={steps},both_ways={str(both_ways).lower()},kind={kind}"
    assert bind(TABLE, spec, "path")() == Slope(rise, steps, kind, both_ways)


def _number(text):
    try:
        return float(text)
    except ValueError:
        return 0.0


@each(
    ("value", "limits", "refused"),
    [
        (1, {"low": 1, "whole": True}, None),
        (np.int64(3), {"low": 1, "whole": True}, None),
        (0.5, {"low": 0, "below": 1}, None),
        (-5.0, {}, None),
        (0, {"low": 1, "whole": True}, "n must be at least 1; got 0."),
        (1.0, {"low": 1, "whole": True}, "n must be a whole number, at least 1; got 1.0."),
        (True, {"low": 1, "whole": True}, "n must be a whole number, at least 1; got True."),
        (1, {"low": 0, "below": 1}, "n must be at least 0 and below 1; got 1."),
        (0.0, {"above": 0}, "n must be above 0 and finite; got 0.0."),
        (math.inf, {"above": 0}, "n must be above 0 and finite; got inf."),
        (math.nan, {"low": 0, "high": 1}, "n must be at least 0 and at most 1; got nan."),
        (math.nan, {}, "n must be finite; got nan."),
        (10**400, {}, f"n must be finite; got an int, 1{'0' * 39}…."),
        ("x", {"low": 0, "high": 1000000}, "n must be a number, at least 0 and at most 1000000; got 'x'."),
        (
            2**70,
            {"low": 0, "high": 10**18, "whole": True},
            f"n must be at least 0 and at most {10**18:.15g}; got {2**70}.",
        ),
    ],
)
def test_require_names_argument_range_and_value(value, limits, refused):
    if refused is None:
        assert require("n", value, **limits) is None
        return
    with pytest.raises(InputError) as error:
        require("n", value, **limits)
    assert str(error.value) == refused


def test_expect_names_argument_types_and_value():
    x = torch.zeros(2, 3)
    for value, kinds in [(x, [torch.Tensor]), (None, [torch.Tensor, None]), (len, [Callable]), ("a", [str, list])]:
        assert expect("x", value, *kinds) is None
    for value, kinds, refused in [
        ([1, 2], [torch.Tensor], "x must be a tensor; got [1, 2]."),
        (x, [str, None], "x must be a text or None; got a tensor of shape (2, 3)."),
        (np.float64(3), [np.ndarray], f"x must be an array; got {np.float64(3)!r}."),
        (3, [Callable], "x must be a function; got 3."),
        (
            torch.nn.Linear(1, 1),
            [Slope, Own],
            "x must be a Slope or an Own; got Linear(in_features=1, out_features=1, bias=True).",
        ),
        ([x] * 9, [dict], "x must be a dict; got a list, [tensor([[0., 0., 0.], [0., 0., 0.]]), t…."),
    ]:
        assert refusal(expect, "x", value, *kinds) == refused


def test_shaped_names_argument_shape_and_value():
    x = torch.zeros(5, 2)
    for value, sides in [(x, ["n", 2]), (x.numpy(), [5, 2]), (x, ["b", ...]), (x[0], ["b", ...]), (x[0, 0], [])]:
        assert shaped("x", value, *sides) is None
    for value, sides, refused in [
        (x, ["n", 3], "x must be a tensor or array of shape (n, 3); got a tensor of shape (5, 2)."),
        (x, ["n"], "x must be a tensor or array of shape (n,); got a tensor of shape (5, 2)."),
        (
            x.numpy()[0],
            ["b", "h", ...],
            "x must be a tensor or array of shape (b, h, …); got an array of shape (2,).",
        ),
        ([[1, 2]], ["n", 2], "x must be a tensor or array of shape (n, 2); got [[1, 2]]."),
        (None, [...], "x must be a tensor or array of shape (…); got None."),
    ]:
        assert refusal(shaped, "x", value, *sides) == refused


def test_a_user_s_own_function_is_loaded_by_name_where_it_is_typed(tmp_path, monkeypatch):
    """Also from the working directory; to another process it goes as its name. A row of the table stays a spec."""
    (tmp_path / "of_my_own.py").write_text("number = 3\n\ndef double(x, *, by=2):\n    return by * x\n")
    (tmp_path / "of_nobody.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    mine = typed({"heun": 1}, "of_my_own:double")
    assert isinstance(mine, Own)
    assert (mine(4), mine(4, by=3), str(mine)) == (8, 12, "of_my_own:double")
    assert pickle.loads(pickle.dumps(mine)) == mine
    (tmp_path / "of_my_later.py").write_text(
        "from __future__ import annotations\n\ndef half(x, *, by: float = 2, name: str = ''):\n    return x / by\n"
    )
    half = typed({"heun": 1}, "of_my_later:half:by=4")
    assert (half(4), half(4, by=1), half.given, pickle.loads(pickle.dumps(half))(8)) == (1, 4, {"by": 4.0}, 2)
    for spec, why in {
        "of_my_later:half:to=3": "function 'of_my_later:half' has no option 'to'; it takes by, name.",
        "of_my_later:half:by=x": "function 'of_my_later:half': by must be float; got 'x'.",
        "of_my_own:double:by=2": "function 'of_my_own:double' has no option 'by'; it takes none.",  # without a type
        "of_my_later:half:by": "In 'of_my_later:half:by', 'by' is not an option; write name:key=value,key=value.",
    }.items():
        assert refusal(typed, {"heun": 1}, spec) == why
    for spec in ("heun", "heun:clock", "heun:clock=flow", "eulr", "eulr:clock=flow", ""):
        assert typed({"heun": 1}, spec) == spec
    for name, why in {
        "of_my_own:run": "can't be loaded: module 'of_my_own' has no attribute 'run'.",
        "nowhere:walk": "can't be loaded: No module named 'nowhere'.",
        "of_nobody:walk": "can't be loaded: division by zero.",
        ":walk": "can't be loaded: Empty module name.",
        "of_my_own:number": "is not a function.",
    }.items():
        with pytest.raises(InputError) as caught:
            typed({}, name)
        assert str(caught.value) == f"{name} {why}"
    assert sys.path == path


def test_an_option_is_added_to_a_spec_or_takes_the_place_of_its_own():
    for spec, found in (
        ("mlp", "mlp:spans=true"), ("mlp:width=8", "mlp:width=8,spans=true"),
        ("mlp:spans=false,width=8", "mlp:spans=true,width=8"), ("mine:net:width=8", "mine:net:width=8,spans=true"),
    ):  # fmt: skip
        assert with_option(spec, "spans", "true") == found


def test_a_list_in_a_text_holds_any_names():
    assert named_list('a, "b, c" ,d') == ("a", "b, c", "d")
    assert named_list("") == named_list(" , ") == ()
    pairs = named_values('size=12, "kind=whelk, red",a=b=x=1, "weight, kg=60",lone', ("a", "a=b", "weight, kg"))
    wanted = [("size", "12"), ("kind", "whelk, red"), ("a=b", "x=1"), ("weight, kg", "60"), ("lone", "")]
    assert pairs == wanted
    assert named_values("a=b=x", ()) == [("a", "b=x")]
    ranges = {"a=b": "0:1", "weight, kg": "-5:60", "top": ""}
    assert (
        named_ranges("ranges", as_list(f"{name}={ends}" for name, ends in ranges.items() if ends) + ", top") == ranges
    )


@given(st.lists(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1)))
def test_a_list_comes_back_from_its_text(parts):
    assert named_list(as_list(parts)) == tuple(parts)
