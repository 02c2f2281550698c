"""The judge of a generated table: copies first, since all else rewards them, and each number beside that of real rows.

    copies         samples that are training rows, and how near samples come to them
    C2ST           whether trees can tell samples from held-out rows, beside what cheap bars reach
    columns        KS or TV of each, and shares of missing cells
    correlations   of every pair
    TSTR           what is learned from samples about a column, beside what is learned from training rows
    nats           over independent columns, of the density

Each is a `Part` of a report: measurements, and sentences. A sample is compared in draws as large as the held-out rows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from ...core.randomness import generator
from ...errors import InputError, printable
from ...specs import require
from ...tables import aligned
from ..floor import LEVEL, NORMAL, medians, share_beside
from ..intervals import binomial_interval
from ..measurement import Measurement
from ..memorisation import copied_share, nearest, nearness, nearness_interval
from .bars import MOST_COLUMNS, copula, per_class, rank_mixture
from .margins import column_distances, correlations, empty_shares
from .nats import Nats
from .rows import Rows, Units
from .trees import FEWEST, NO_TREES, auc, skill, trees_at_hand

__all__ = ["DRAWS", "MOST", "NOT_HELD", "Judged", "Part", "judge_table", "percent", "report_text"]

DRAWS = 3
MOST, WIDE = 5000, 64  # rows of a draw, fewer in proportion where there are more columns than this
COPY = 1e-6  # distance, in `Units`, below which two rows are one
NEAR = 0.9  # NN ratio below which samples are called too near
NAMED = 5  # columns
FEW = 500  # rows; of fewer, C2ST is the mean of two ways to fold them
NOT_HELD = (
    "No rows were held out, so copying can't be seen: every number below is best for a run that returns its training "
    "rows. Train with --held-out 0.2 to see it."
)


@dataclass(frozen=True)
class Part:
    """A part of the report: its heading, the sentences under it, and its measurements."""

    heading: str
    words: tuple[str, ...] = ()
    rows: tuple[Measurement, ...] = ()


@dataclass(frozen=True, eq=False)
class Judged:
    """The rows that are compared: draws of samples and of training rows, as large as the real rows beside them."""

    units: Units
    real: Rows
    """Held-out rows; without any, half of the training rows, and `twins` are drawn from the other half."""
    draws: tuple[Rows, ...]
    twins: tuple[Rows, ...]
    held_out: bool
    what: str
    """Words for the real rows."""

    @classmethod
    def of(cls, samples: Rows, train: Rows, held: Rows | None, draws: int = DRAWS, seed: int = 0) -> "Judged":
        """Draws of one size, the first rows of the samples among them once."""
        require("draws", draws, 1, whole=True)
        others, real = train, held
        if real is None or len(real) < 2:
            mixed = train.drawn(len(train), generator("halves", seed))
            others, real = mixed.take(slice(len(train) // 2, None)), mixed.take(slice(len(train) // 2))
        most = max(10 * FEWEST, int(MOST * min(1.0, WIDE / len(train.names))))
        size = min(len(real), max(1, len(samples) // draws), most)
        count = max(1, min(draws, len(samples) // size))
        parts = tuple(samples.take(slice(k * size, (k + 1) * size)) for k in range(count))
        twins = tuple(others.drawn(size, generator("twins", seed, k)) for k in range(draws))
        seen = held is not None and len(held) >= 2
        return cls(
            Units(train), real.drawn(size, generator("real", seed)), parts, twins, seen,
            "held-out rows" if seen else "training rows",
        )  # fmt: skip


class Generator(Protocol):
    """A cheap bar."""

    def sample(self, n: int, draw: torch.Generator) -> Rows: ...


def judge_table(
    samples: Rows,
    train: Rows,
    held: Rows | None = None,
    *,
    label: str = "",
    target: str = "",
    nats: Nats | str = "",
    bars: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Part]:
    """The report on samples of a generator that learned from `train`, beside rows that were held out from it.

    label: a column of levels, for whose levels the copula has a bar each. target: the column that trees predict, by
    default the label. nats: of held-out rows, or the reason why there are none. bars: fit the cheap bars and judge
    them, too.
    """
    for rows in (train, samples, held):
        if rows is None or (rows is held and not len(rows)):
            continue
        if rows.names != train.names or rows.levels != train.levels or len(rows) < 2:
            raise InputError("samples, train and held must be at least two rows each of the same columns.")
    if bad := int(np.isinf(samples.x).any(1).sum()):
        samples = samples.take(torch.from_numpy(np.flatnonzero(~np.isinf(samples.x).any(1))))
        if len(samples) < 2:
            raise InputError(f"{bad} samples are not finite, so there is nothing to measure.")
    samples = samples.drawn(len(samples), generator("samples", seed))  # classes may stand in order
    j = Judged.of(samples, train, held, draws, seed)
    target = target or label
    parts = [
        _copies(j, samples, held if j.held_out else None, bad),
        _classified(j, _bars(train, label, seed) if bars else {}, seed),
        _columns(j),
        _correlated(j),
        _useful(j, samples, train, target, draws, seed),
        _nats(nats),
    ]
    return [part for part in parts if part is not None]


def _bars(train: Rows, label: str = "", seed: int = 0) -> dict[str, Callable[[], Generator]]:
    """The cheap bars of a table, each fitted when called; none of one too wide to be cheap."""
    if len(train.names) > MOST_COLUMNS:
        return {}
    found: dict[str, Callable[[], Generator]] = {"Gaussian copula": lambda: copula(train, seed)}
    if label and train.levels[k := train.column(label)]:
        found[f"copula per {label}"] = lambda: per_class(train, k, seed)
    return found | {"mixture of ranks": lambda: rank_mixture(train, seed)}


def report_text(parts: Sequence[Part]) -> str:
    """The report as text: each part's sentences, then its measurements beside the same of real rows."""
    lines = []
    for part in parts:
        lines += [part.heading, *(f"  {sentence}" for sentence in part.words)]
        if part.rows:
            cells = [("", "value", "95 % interval", "real rows"), *map(_cells, part.rows)]
            kept = [k for k in range(4) if k < 2 or any(row[k] for row in cells[1:])]
            lines += [f"    {line}" for line in aligned([[row[k] for k in kept] for row in cells])[0]]
        lines.append("")
    return "\n".join(map(printable, lines[:-1]))


def percent(share: float) -> str:
    """A share in words: 35 %, 0.4 %."""
    return f"{100 * share:.{0 if share >= 0.0995 or not share else 1 if share >= 0.00095 else 2}f} %"


def _cells(row: Measurement) -> tuple[str, str, str, str]:
    span = "" if math.isnan(row.low) else f"{row.low:.3g} to {row.high:.3g}"
    return row.name, f"{row.value:.3g}", span, "" if math.isnan(row.floor) else f"{row.floor:.3g}"


def _mean(name: str, values: Sequence[float], floors: Sequence[float] = (), better: str = "lower") -> Measurement:
    """The mean over draws and its interval, beside the mean over draws of real rows."""
    value, spread = float(np.mean(values)), _error(values)
    floor = (float(np.mean(floors)), min(floors), max(floors)) if len(floors) else (math.nan,) * 3
    error = math.hypot(spread, _error(floors)) if len(floors) else math.nan
    low, high = value - NORMAL * spread, value + NORMAL * spread
    return Measurement(name, value, low, high, *floor, better, error=error)  # type: ignore[arg-type]


def _error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _copies(j: Judged, samples: Rows, held: Rows | None, bad: int) -> Part:
    """Copies of training rows among samples and among held-out rows, and distances to the nearest."""
    train, words, rows = j.units(j.units.train), [], []
    far = nearest(j.units(samples), train).distance * train.shape[1] ** 0.5
    count, n = int((far < COPY).sum()), len(far)
    bounds = (count / n, *binomial_interval(count, n))
    if bad:
        words.append(f"{bad} samples are not finite and are left out.")
    if held is None:
        words += [f"{percent(count / n)} of samples are copies of training rows.", NOT_HELD]
        rows.append(Measurement("exact copies", *bounds, *(math.nan,) * 3, "lower"))
        return Part("Copies of training rows", tuple(words), tuple(rows))
    away = nearest(j.units(held), train).distance * train.shape[1] ** 0.5
    share = float((away < COPY).double().mean())
    error, p = share_beside(bounds, n, share, float(len(away)), "lower")
    ratio, span, apart = nearness(far, away), nearness_interval(far, away), medians(far, away)
    close = ratio < NEAR and apart < LEVEL
    verdict = (
        ": this model remembers."
        if p < LEVEL
        else ", and samples come too near to training rows: this model remembers."
        if close
        else ": no more than new rows are."
    )
    words.append(
        f"{percent(count / n)} of samples are copies of training rows; of held-out rows {percent(share)}{verdict}"
    )
    words.append(f"The nearest training row is {ratio:.2f} times as far from samples as from held-out rows.")
    copied = copied_share(far, away)
    near = float((away <= np.quantile(away.numpy(), 0.01, method="lower")).double().mean())
    rows += [
        Measurement("exact copies", *bounds, share, share, share, "lower", "", error, p),
        Measurement("nearest training row", ratio, *span, 1.0, 1.0, 1.0, "equal", "", math.nan, apart),
        Measurement("copies", copied, *binomial_interval(round(copied * n), n), near, near, near, "lower"),
    ]
    words.append(
        "Counted as copies, near ones too: no farther from a training row than the nearest 1 % of held-out rows."
    )
    return Part("Copies of training rows", tuple(words), tuple(rows))


def _classified(j: Judged, cheap: dict[str, Callable[[], Generator]], seed: int) -> Part:
    """C2ST of samples, of real rows and of the cheap bars."""
    heading = f"C2ST: can trees tell them from {j.what}? (AUC, 0.5: no)"
    size = len(j.real)
    if not trees_at_hand():
        return Part(heading, (f"C2ST is {NO_TREES}.",))
    if min(size, *(len(one) for one in (*j.draws, *j.twins))) < FEWEST:
        return Part(heading, (f"Skipped: it needs at least {FEWEST} rows on either side, and there are {size}.",))
    splits = 2 if size < FEW else 1

    def scored(draws: Sequence[Rows]) -> list[float]:
        return [
            float(np.mean([auc(j.real, one, seed + 2 * k + i) for i in range(splits)])) for k, one in enumerate(draws)
        ]

    floors = scored(j.twins)
    sets = {"C2ST of samples": scored(j.draws)}
    for name, make in cheap.items():
        fitted = make()
        drawn = [fitted.sample(size, generator(name, seed, k)) for k in range(len(j.draws))]
        sets[f"C2ST of the {name}"] = scored(drawn)
    # Three draws tell little of their spread, and all sets' is alike.
    spreads = [float(np.var(one, ddof=1)) for one in (floors, *sets.values()) if len(one) > 1]
    noise = NORMAL * math.sqrt(np.mean(spreads) / len(j.draws)) if spreads else math.nan
    found = []
    for name, values in sets.items():
        row = _mean(name, values, floors)
        found.append(replace(row, low=row.value - noise, high=row.value + noise))
    words = f"{len(j.draws)} draws of {size} rows."
    if not cheap:  # not asked for, or too many columns
        return Part(heading, (words,), tuple(found))
    best = min(found[1:], key=lambda row: row.value)
    off = found[0].value - best.value
    better = "no better than" if not abs(off) > math.sqrt(2) * noise else "worse than" if off > 0 else "better than"
    words += f" Samples are {better} the {best.name.removeprefix('C2ST of the ')}."
    return Part(heading, (words,), tuple(found))


def _columns(j: Judged) -> Part:
    """The columns whose distribution is farthest off, and missing cells."""
    apart, floors = (np.array([column_distances(j.real, one) for one in draws]) for draws in (j.draws, j.twins))
    found = [_mean("worst column", apart.max(1).tolist(), floors.max(1).tolist())]
    for k in np.argsort(-apart.mean(0), kind="stable")[:NAMED]:
        name = f"{'TV' if j.real.levels[k] else 'KS'} of {j.real.names[k]}"
        found.append(_mean(name, apart[:, k].tolist(), floors[:, k].tolist()))
    heading = "Columns: how far distributions are apart (KS of numbers, TV of levels, 0: equal)"
    gaps, own = (np.mean([empty_shares(one) for one in draws], 0) for draws in ((j.real,), j.draws))
    if not gaps.any() and not own.any():
        return Part(heading, (), tuple(found))
    k = int(np.abs(gaps - own).argmax())
    words = (
        f"{percent(own.mean())} of cells are missing, of the real ones {percent(gaps.mean())}; most apart in "
        f"{j.real.names[k]}: {percent(own[k])} and {percent(gaps[k])}."
    )
    shares = [empty_shares(one).mean() for one in j.draws], [empty_shares(one).mean() for one in j.twins]
    return Part(heading, (words,), (*found, replace(_mean("missing cells", *shares), better="equal")))


def _correlated(j: Judged) -> Part | None:
    """Correlations, and the pair that is farthest off."""
    found = [correlations(j.units, j.real, one) for one in j.draws]
    floors = [correlations(j.units, j.real, one) for one in j.twins]
    worst = max(found, key=lambda one: one[1])
    if not worst[2]:
        return None
    row = _mean("mean |ρ − ρ′|", [one[0] for one in found], [one[0] for one in floors])
    words = f"The worst pair is {worst[2]}: {worst[1]:.2f} apart."
    return Part("Correlations of every pair", (words,), (row,))


def _useful(j: Judged, samples: Rows, train: Rows, target: str, draws: int, seed: int) -> Part | None:
    """TSTR beside TRTR."""
    if not target:
        return None
    k = train.column(target)
    score = "accuracy" if train.levels[k] else "R²"
    heading = f"TSTR: trees that learn {target} from samples, tested on {j.what} ({score})"
    if not trees_at_hand():
        return Part(heading, (f"TSTR is {NO_TREES}.",))
    if j.held_out:
        learned = train.drawn(MOST, generator("learned", seed))
    else:
        learned = j.twins[0]
    size = min(len(learned), max(1, len(samples) // draws))
    sets = [samples.take(slice(i * size, (i + 1) * size)) for i in range(max(1, min(draws, len(samples) // size)))]
    try:
        beside = skill(learned, j.real, k)
        found = [skill(one, j.real, k) for one in sets]
    except (InputError, ValueError) as error:
        return Part(heading, (f"Skipped: {' '.join(str(error).split())[:120]}",))
    row = replace(_mean(f"TSTR of {target}", found, [beside]), better="higher", error=math.nan)
    return Part(heading, (f"From as many training rows they learn {beside:.3f} (TRTR).",), (row,))


def _nats(found: Nats | str) -> Part | None:
    """Nats per row over independent columns."""
    heading = "Nats per held-out row over independent columns"
    if isinstance(found, str):
        return Part(heading, (found,)) if found else None
    means = [float(part.mean()) for part in found[:2]]
    errors = [float(part.std()) / math.sqrt(len(part)) if len(part) > 1 else math.nan for part in found[:2]]
    off = found.own - found.copula
    error = float(off.std()) / math.sqrt(len(off)) if len(off) > 1 else math.nan
    row = Measurement(
        "nats per row", means[0], means[0] - NORMAL * errors[0], means[0] + NORMAL * errors[0], *(means[1],) * 3,
        "higher", "its floor is the Gaussian copula's", error,
    )  # fmt: skip
    kind = "lower bounds, for values repeat or are missing" if found.bound else "exact"
    words = [f"{means[0]:.3f} ± {errors[0]:.3f}; the Gaussian copula has {means[1]:.3f} ± {errors[1]:.3f} ({kind})."]
    if found.beyond:
        words.append(f"{found.beyond} rows lie beyond the training rows' range in a column, and count as at its end.")
    return Part(heading, tuple(words), (replace(row, floor=means[1]),))
