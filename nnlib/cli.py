"""The command line: `nnlib data`, `nnlib train`, `nnlib tune`, `nnlib predict` and `nnlib bench`."""

import argparse
import ast
import sys
from collections.abc import Collection, Sequence
from typing import Any

from nnlib import bench, checkpoint, experiments, predict, studies
from nnlib.bench import store
from nnlib.data import sources

DONE, FAILED, WRONG_USE = 0, 1, 2


class UsageError(Exception):
    """The command was called wrongly."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 failed, 2 wrong use; an error is one line."""
    options = parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except KeyboardInterrupt:
        print("nnlib: interrupted; the same command continues from the checkpoint", file=sys.stderr)
        return FAILED
    except Exception as error:
        if options.debug:
            raise
        print(f"nnlib: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return WRONG_USE if isinstance(error, UsageError) else FAILED


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common = argparse.ArgumentParser(add_help=False, parents=[debug])
    common.add_argument("--data", metavar="DIR", help="the data root (default: $NNLIB_DATA, else data/)")
    top = argparse.ArgumentParser(prog="nnlib", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    sets = commands.add_parser("data", help="which sets are where, and whether they are whole")
    actions = sets.add_subparsers(required=True, metavar="ACTION")
    status = actions.add_parser("status", parents=[common], help="list the sets found under the data root")
    status.set_defaults(command=data_status)
    verify = actions.add_parser("verify", parents=[common], help="read everything, compare checksums, list defects")
    verify.set_defaults(command=data_verify)
    trainer = commands.add_parser("train", parents=[common], help="run one named experiment, continued if cut off")
    trainer.add_argument("name", nargs="?", metavar="NAME")
    trainer.add_argument("--list", action="store_true", help="name the experiments")
    trainer.add_argument("--profile", choices=experiments.PROFILES, default="quick")
    trainer.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field, say epochs=3")
    trainer.add_argument("--verify", action="store_true", help="replay the record's first steps and compare")
    trainer.add_argument("--release", action="store_true", help="write the full profile's network to models/")
    trainer.set_defaults(command=train)
    tuner = commands.add_parser("tune", parents=[common], help="run one named search, continued if cut off")
    tuner.add_argument("name", nargs="?", metavar="STUDY")
    tuner.add_argument("--list", action="store_true", help="name the studies")
    tuner.add_argument("--profile", choices=experiments.PROFILES, default="quick")
    tuner.add_argument("--trials", type=int, metavar="N", help="so many instead of those declared")
    tuner.add_argument("--workers", type=int, metavar="N", help="processes that share the cores (default: a core each)")
    tuner.add_argument("--dask", metavar="ADDRESS", help="use the workers of this Dask scheduler instead")
    tuner.set_defaults(command=search)
    predictor = commands.add_parser("predict", parents=[debug], help="the classes of a folder of pictures, as CSV")
    predictor.add_argument("folder", metavar="FOLDER", help=f"of {', '.join(predict.SUFFIXES)} files")
    predictor.add_argument("--model", required=True, metavar="NAME|PATH", help="a network in models/, or a saved one")
    predictor.add_argument("--out", metavar="FILE.csv", help="where the CSV goes (default: standard output)")
    predictor.set_defaults(command=classify)
    timer = commands.add_parser("bench", parents=[debug], help="step times, rates, peak memory, ratios to PyTorch")
    timer.add_argument("works", nargs="*", metavar="WORK", help=f"{', '.join(bench.WORKS)}; default: all, and growth")
    timer.add_argument("--against", choices=["torch"], help="compare with PyTorch, at its defaults and tuned")
    timer.add_argument("--json", metavar="FILE", help="add the run to the list of runs in FILE")
    timer.add_argument("--rounds", type=int, default=bench.Settings.rounds, metavar="N", help="default: %(default)s")
    timer.add_argument("--growth", action="store_true", help="step time against batch size and image side, too")
    timer.set_defaults(command=measure)
    return top


def train(options: argparse.Namespace) -> int:
    """Train, list or verify named experiments."""
    if options.list:
        print("\n".join(experiments.EXPERIMENTS))
        return DONE
    require_name("train", "an experiment", options.name, experiments.EXPERIMENTS)
    if bool(options.set) + options.verify + options.release > 1:
        raise UsageError("train: --verify and --release are of the named experiment's record; they take no --set")
    if options.verify:
        return verify(options)
    if options.release:
        print(experiments.release(options.name, root=options.data))
        return DONE
    changes = dict(setting(text) for text in options.set)
    record = experiments.run(options.name, options.profile, changes=changes, root=options.data)
    print(f"{record.name} ({record.profile}): {record.source}")
    for key, value in record.metrics.items():
        print(f"  {key:<24}{value:,.4f}" if isinstance(value, float) else f"  {key:<24}{value:,}")
    print(f"  {'seconds':<24}{record.seconds:,.1f}")
    saved = experiments.network_path(record.name, options.profile)
    if saved.is_file():
        print(f"  {'network':<24}{saved}")
    return DONE


def require_name(command: str, what: str, name: str | None, known: Collection[str]) -> None:
    """Raise UsageError unless the name of an experiment or a study was given, and is known."""
    if name not in known:
        told = f"expected {what}'s name" if name is None else f"no {what.split()[-1]} {name!r}"
        raise UsageError(f"{command}: {told}; `nnlib {command} --list` shows them")


def verify(options: argparse.Namespace) -> int:
    """Replay a record's first steps; status 1 when the losses differ by more than the machine explains."""
    result = experiments.verify(options.name, options.profile, root=options.data)
    wanted = "the last bit" if result.same_machine else "1e-4 (another processor or version)"
    verdict = "equal" if result.passed else "NOT equal"
    print(
        f"{options.name}: {result.steps} steps replayed, losses {verdict} to {wanted}; "
        f"largest relative difference {result.largest_difference:.1e}"
    )
    return DONE if result.passed else FAILED


def search(options: argparse.Namespace) -> int:
    """Run or list named searches, and show the best trials."""
    if options.list:
        print("\n".join(studies.STUDIES))
        return DONE
    require_name("tune", "a study", options.name, studies.STUDIES)
    study = studies.find(options.name, options.profile)
    if study.sampler == "grid" and (options.trials or 0) > study.grid_size:
        raise UsageError(f"tune: {options.name} is a grid of {study.grid_size} trials, got --trials {options.trials}")
    for flag in ("trials", "workers"):
        if getattr(options, flag) is not None and getattr(options, flag) < 1:
            raise UsageError(f"tune: expected --{flag} of at least 1, got {getattr(options, flag)}")
    if options.dask and (options.workers or options.data):
        raise UsageError("tune: --workers and --data are of this machine; a cluster's are chosen where it is started")
    from nnlib import tune  # Optuna takes a moment to import

    result = tune.run(
        options.name,
        options.profile,
        workers=options.workers,
        trials=options.trials,
        dask=options.dask,
        root=options.data,
    )
    print(f"{result.name} ({result.profile}): {result.source}")
    print(f"{result.summary()}\n")
    _print_columns(result.table(5))
    print(f"\n{'result':<10}{tune.path_of(result.name, options.profile)}")
    return DONE


def setting(text: str) -> tuple[str, Any]:
    """Return ``(field, value)`` of a KEY=VALUE. Raises UsageError for an unknown field or a value of another type."""
    key, separator, value = text.partition("=")
    simple = {
        name: value
        for name, value in vars(experiments.find("plain", "quick")).items()
        if isinstance(value, bool | int | float | str | tuple)
    }
    if not separator or key not in simple:
        raise UsageError(f"--set: expected KEY=VALUE with a key of {', '.join(simple)}; got {text!r}")
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        parsed = value
    parsed = tuple(parsed) if isinstance(parsed, list) else parsed
    kind = type(simple[key])
    if kind is float and isinstance(parsed, int):
        parsed = float(parsed)
    if not isinstance(parsed, kind):
        raise UsageError(f"--set: {key} is of type {kind.__name__}; got {value!r}")
    return key, parsed


def classify(options: argparse.Namespace) -> int:
    """Predict the classes of a folder's pictures; status 1 when none could be read."""
    if options.out is not None:
        checkpoint.check_writable(options.out)
    try:
        predictions = predict.predictions(options.folder, options.model)
    except KeyboardInterrupt:
        raise RuntimeError("predict: interrupted; nothing was written") from None
    text = predict.as_csv(predictions)
    if options.out is None:
        sys.stdout.write(text)
    else:
        checkpoint.write_bytes(options.out, text.encode())
    return DONE if any(not prediction.error for prediction in predictions) else FAILED


def measure(options: argparse.Namespace) -> int:
    """Measure works, and add the run to a file; what is wrong with the call or the file is told before."""
    unknown = [name for name in options.works if name not in bench.WORKS]
    if unknown:
        raise UsageError(f"bench: no work {unknown[0]!r}; the works are {', '.join(bench.WORKS)}")
    if options.rounds < 1:
        raise UsageError(f"bench: expected --rounds of at least 1, got {options.rounds}")
    runs = []
    if options.json:
        runs = store.load(options.json)
        store.save(options.json, runs)
    works = [bench.WORKS[name] for name in dict.fromkeys(options.works) or bench.WORKS]
    try:
        run = bench.run(
            works,
            torch=options.against == "torch",
            growth=options.growth or not options.works,
            settings=bench.Settings(rounds=options.rounds),
            show=lambda line: print(line, flush=True),
        )
    except KeyboardInterrupt:
        raise RuntimeError("bench: interrupted; the run was not stored") from None
    if options.json:
        store.save(options.json, [*runs, run])
    return DONE


def data_status(options: argparse.Namespace) -> int:
    """List the sets that are there."""
    _print_rows(sources.status(options.data))
    return DONE


def data_verify(options: argparse.Namespace) -> int:
    """Read the sets that are there; status 1 when one is defective."""
    result = sources.verify(options.data, progress=lambda where: print(f"reading {where} ...", file=sys.stderr))
    _print_rows(result.rows)
    for defect in result.defects:
        print(f"nnlib: {defect}", file=sys.stderr)
    return DONE if result.ok else FAILED


def _print_rows(rows: Sequence[sources.Row]) -> None:
    table: list[tuple[str, ...]] = [("set", "layout", "path", "images", "state", "checksum")]
    for row in rows:
        images = ", ".join(f"{split} {count:,}" for split, count in row.images.items())
        table.append((row.dataset, row.layout, row.path, images, row.state, row.checksum))
    _print_columns(table)


def _print_columns(table: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
