"""Generated tables beside cheap bars and peers, each judged by `ebbtide.metrics.tables` on rows that were held out.

    python -m benchmarks.tables                            # scikit-learn's iris, wine, diabetes and breast cancer
    python -m benchmarks.tables --folder data --out benchmarks   # every .csv of a folder too; labels.json names targets
    python -m benchmarks.tables --only ours copula --tables iris --seeds 1

A table is split into halves by each seed: one to learn from, one to be judged by. Every result is kept in --store as
soon as it is there, and a further run goes on from it. CTGAN, TVAE and ForestDiffusion are peers where they are
installed (benchmarks/README.md); of the others a row says so. A number is the mean over seeds, and over three draws.
"""

import argparse
import csv
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

import ebbtide
from ebbtide.core.randomness import generator
from ebbtide.data import load, save_table
from ebbtide.data.forms import Form
from ebbtide.errors import InputError
from ebbtide.files import write_file
from ebbtide.metrics.tables import Rows, copula, judge_table, per_class, rank_mixture
from ebbtide.specs import parse

from .pages import cpu_name, write_section

SETS = ("iris", "wine", "diabetes", "breast_cancer")
DRAWS = 3
HEADS = {
    "C2ST": "C2ST of samples", "KS": "worst column", "corr": "mean |ρ − ρ′|", "NN": "nearest training row",
    "copies": "exact copies", "TSTR": "TSTR",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table, half of which is learned from, and the column that trees predict."""

    name: str
    train: Rows
    held: Rows
    form: Form
    target: str
    by: str
    """The column whose levels have a copula each; "" for none."""


Generator = Callable[[Table, int, int], Rows]  # (table, rows, seed) → rows


def tables(
    names: Sequence[str], folder: Path | None, seed: int, most: int, by: Mapping[str, str] | None = None
) -> Iterator[Table]:
    """scikit-learn's sets and a folder's files, those of these names or all, split by the seed as halves."""
    targets = dict.fromkeys(SETS, "target")
    files: dict[str, Path | None] = dict.fromkeys(SETS)
    if folder is not None:
        files = {path.stem: path for path in sorted(folder.glob("*.csv"))}
        known = folder / "labels.json"
        targets = json.loads(known.read_text()) if known.exists() else {}
    for name in names or files:
        if name not in files:
            raise InputError(f"--tables must be of {', '.join(files)}; got {name!r}.")
        points = load(str(files[name] or _written(name)), 1, 0)
        rows = Rows.of(points.x, points.columns, points.form.levels if points.form else ())
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows)))
        half = len(rows) // 2
        target = targets.get(name, rows.names[-1])
        own = (by or {}).get(name, target if rows.levels[rows.column(target)] else "")
        yield Table(
            name, rows.take(order[: min(half, most)]), rows.take(order[half : 2 * half][:most]), points.form or Form(),
            target, own,
        )  # fmt: skip


def _written(name: str) -> Path:
    """A set of scikit-learn's as a file, its classes by name."""
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    texts = [str(found.target_names[k]) for k in found.target] if "target_names" in found else found.target.tolist()
    path = Path(tempfile.mkdtemp()) / f"{name}.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*found.feature_names, "target"])
        rows.writerows([*map(repr, map(float, row)), text] for row, text in zip(found.data, texts))
    return path


# --- generators


def ours(table: Table, n: int, seed: int, **fields: Any) -> Rows:
    """`ebbtide train flow --data table.csv`, with the options that --ours gives."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        save_table(path, table.train.tensor.float(), table.form)
        trained = ebbtide.fit(ebbtide.flow(data=str(path), seed=seed, **fields), progress=False, solvers=False)
        return Rows.of(trained.sample(n, seed=seed), table.train.names, table.train.levels)


def cheap(make: Callable[..., Any]) -> Generator:
    """A bar of `ebbtide.metrics.tables`."""
    return lambda table, n, seed: make(table, seed).sample(n, generator("benchmark", seed))


def _by(table: Table, seed: int) -> Any:
    if not table.by:
        raise InputError("no classes")
    return per_class(table.train, table.train.column(table.by), seed)


def gan(name: str) -> Generator:
    """CTGAN or TVAE, of the package ctgan."""

    def made(table: Table, n: int, seed: int) -> Rows:
        import ctgan
        import pandas

        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the peer draws from it
        rows, places = table.train, dict(enumerate(table.train.names))
        frame = pandas.DataFrame(rows.x, columns=list(rows.names))
        discrete = [places[k] for k in places if rows.levels[k]]
        frame[discrete] = frame[discrete].fillna(-1).astype(int)
        gaps = frame.columns[frame.isna().any()]
        if len(gaps):
            raise InputError("takes no missing cells")
        model = getattr(ctgan, name)(enable_gpu=False)
        model.fit(frame, discrete)
        x = model.sample(n)[list(rows.names)].to_numpy(dtype=float)
        for k in places:
            if rows.levels[k]:
                x[x[:, k] < 0, k] = np.nan
        return Rows.of(torch.from_numpy(x), rows.names, rows.levels)

    return made


def forest(table: Table, n: int, seed: int) -> Rows:
    """ForestFlow, of the package ForestDiffusion, as constructed; classes of the target each have their own trees."""
    from ForestDiffusion import ForestDiffusionModel

    rows = table.train
    kinds = [[k for k in range(len(rows.names)) if test(k)] for test in (_categorical(rows), _whole(rows))]
    label = rows.column(table.target)
    own = bool(rows.levels[label]) and not np.isnan(rows.x[:, label]).any()
    kept = [k for k in range(len(rows.names)) if not (own and k == label)]
    cat, whole = ([kept.index(k) for k in kind if k in kept] for kind in kinds)
    model = ForestDiffusionModel(
        rows.x[:, kept], label_y=rows.x[:, label] if own else None, cat_indexes=cat, int_indexes=whole, n_jobs=1,
        seed=seed,
    )  # fmt: skip
    found = np.asarray(model.generate(batch_size=n), dtype=float)
    x = np.empty((len(found), len(rows.names)))
    x[:, kept] = found[:, : len(kept)]
    if own:
        x[:, label] = found[:, -1]
    return Rows.of(torch.from_numpy(x), rows.names, rows.levels)


def _categorical(rows: Rows) -> Callable[[int], bool]:
    return lambda k: bool(rows.levels[k])


def _whole(rows: Rows) -> Callable[[int], bool]:
    def test(k: int) -> bool:
        own = rows.x[~np.isnan(rows.x[:, k]), k]
        return not rows.levels[k] and bool((own == own.round()).all())

    return test


GENERATORS: dict[str, tuple[str, Generator, str]] = {
    "ours": ("ebbtide", ours, ""),
    "copula": ("Gaussian copula", cheap(lambda table, seed: copula(table.train, seed)), ""),
    "per-class": ("copula per class", cheap(_by), ""),
    "mixture": ("mixture of ranks", cheap(lambda table, seed: rank_mixture(table.train, seed)), ""),
    "ctgan": ("CTGAN", gan("CTGAN"), "ctgan"),
    "tvae": ("TVAE", gan("TVAE"), "ctgan"),
    "forest": ("ForestFlow", forest, "ForestDiffusion"),
}


# --- measuring


def measured(table: Table, method: str, seed: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The judge's numbers of a generator, and the CPU seconds that it took; or why there are none."""
    _, make, package = GENERATORS[method]
    if package and find_spec(package) is None:
        return {"why": f"{package} is not installed"}
    own = dict(fields) if method == "ours" else {}
    start = time.process_time()
    try:
        samples = make(table, DRAWS * len(table.held), seed, **own)
    except Exception as error:  # a peer may fail in its own way, which is a result as well
        if not package and not isinstance(error, InputError):
            raise
        return {"why": " ".join(str(error).split())[:80] or type(error).__name__}
    seconds = time.process_time() - start
    parts = judge_table(samples, table.train, table.held, target=table.target, bars=False, draws=DRAWS, seed=seed)
    rows = {row.name: row for part in parts for row in part.rows}
    found = {head: rows[name].value for head, name in HEADS.items() if name in rows}
    tstr = rows.get(f"TSTR of {table.target}")
    if tstr is not None:
        found["TSTR"] = tstr.value / tstr.floor if tstr.floor > 0 else math.nan
    floors = {f"{head} floor": rows[HEADS[head]].floor for head in ("C2ST", "KS", "corr", "copies") if head in found}
    return found | floors | {"CPU s": seconds, "rows": len(table.train), "columns": len(table.train.names)}


def markdown(found: Mapping[str, Mapping[str, Any]], seeds: int) -> str:
    """The results as a table: a line for each table and generator."""
    columns = ["C2ST", "KS", "corr", "NN", "copies", "TSTR", "CPU s"]
    lines = [
        "| table (training rows × columns) | generator | C2ST | KS | correlations | NN | copies | TSTR/TRTR | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    names = list(dict.fromkeys(key.split("/")[0] for key in found))
    for name in names:
        first = True
        for method, (title, _, _) in GENERATORS.items():
            own = [found[key] for k in range(seeds) if (key := f"{name}/{method}/{k}") in found]
            if not own:
                continue
            good = [one for one in own if "why" not in one]
            cells = [_cell(column, [one[column] for one in good if column in one], good) for column in columns]
            if not good:
                cells = [own[0]["why"].replace("|", "/"), *[""] * (len(columns) - 1)]
            part = f" ({len(good)} of {seeds} seeds)" if 0 < len(good) < seeds else ""
            size = f"{name} {good[0]['rows']} × {good[0]['columns']}" if good and first else ""
            first = first and not good
            lines.append(f"| {size} | {title}{part} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(column: str, values: Sequence[float], own: Sequence[Mapping[str, Any]]) -> str:
    if not values:
        return "–"
    mean = float(np.mean(values))
    if column == "copies":
        return f"{100 * mean:.1f} % (real {100 * np.mean([one['copies floor'] for one in own]):.1f} %)"
    text = f"{mean:.1f}" if column == "CPU s" else f"{mean:.2f}" if column in ("NN", "TSTR") else f"{mean:.3f}"
    if f"{column} floor" in own[0]:
        text += f" (real {np.mean([one[f'{column} floor'] for one in own]):.3f})"
    return text


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="*", default=[], help="names of tables; all unless given")
    parser.add_argument("--folder", type=Path, help="a folder of .csv files instead of scikit-learn's sets")
    parser.add_argument("--by", nargs="*", default=[], help="NAME=COLUMN: a table's column that has a copula per level")
    parser.add_argument("--only", nargs="*", default=list(GENERATORS), choices=list(GENERATORS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=2000, help="most rows of a half")
    parser.add_argument("--ours", default="", help="options of the recipe, as in steps=800,codec=mixed")
    parser.add_argument("--store", type=Path, default=Path("runs/tables.json"), help="results so far")
    parser.add_argument("--out", type=Path, help="folder whose RESULTS.md gets a section; else it is only printed")
    args = parser.parse_args(given)
    torch.set_num_threads(1)
    fields = parse(f"ours:{args.ours}")[1] if args.ours else {}
    by = dict(part.split("=", 1) for part in args.by)
    found: dict[str, Any] = json.loads(args.store.read_text()) if args.store.exists() else {}
    work = [
        (seed, table) for seed in range(args.seeds) for table in tables(args.tables, args.folder, seed, args.rows, by)
    ]
    bar = tqdm(total=len(work) * len(args.only), unit="cell")
    for seed, table in work:
        for method in args.only:
            key = f"{table.name}/{method}/{seed}"
            bar.set_description(key)
            if key not in found or "not installed" in found[key].get("why", ""):
                found[key] = measured(table, method, seed, fields)
                args.store.parent.mkdir(parents=True, exist_ok=True)
                write_file(args.store, (json.dumps(found, indent=1) + "\n").encode())
            bar.update()
    bar.close()
    text = markdown(found, args.seeds)
    about = (
        f"Halves by {args.seeds} seeds, {DRAWS} draws each; one thread of {cpu_name()}. C2ST is the AUC of boosted "
        "trees beside held-out rows, NN the distance to the nearest training row over that of held-out rows; in "
        f"brackets the same of real rows. `python -m benchmarks.tables{' --folder FOLDER' if args.folder else ''}`"
    )
    print(text)
    if args.out:
        write_section(args.out / "RESULTS.md", "tables", f"## Tables\n\n{about}\n\n{text}")


if __name__ == "__main__":
    main()
