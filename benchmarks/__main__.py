"""`python -m benchmarks`: how fast ds_trainer is beside its peers, here and now; `--only ROW`, `--quick`."""

import argparse
import datetime
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.alternation import Effort
from benchmarks.bench import Bench, Outcome
from benchmarks.case_writer import ENGINE_CONFIG
from benchmarks.figures import Line
from benchmarks.machine import describe_machine, load_average, results_name
from benchmarks.report import draw, number, table, write_results
from benchmarks.rows import QUICK_ROWS, ROWS
from benchmarks.rows.arithmetic import peak_flops
from ds_trainer.progress import log, start_log

RESULTS_DIR = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write results after each row."""
    arguments = _parser().parse_args(argv)
    start_log()
    effort = _effort(arguments)
    began, load_before = datetime.datetime.now(), load_average()
    machine = describe_machine()
    log.info(f"{machine['processor']}, {machine['cores']} cores, load {load_before[0]}, commit {machine['commit']}")
    peaks = peak_flops(effort.threads)
    log.info("measured peak: " + ", ".join(f"{number(peak / 1e9)} GFLOP/s {name}" for name, peak in peaks.items()))
    path = arguments.results_dir / f"{results_name(began)}{'-quick' if effort.is_quick else ''}.json"
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as work_dir:
        bench = Bench(effort, Path(work_dir), peaks, log.info)
        for name in arguments.only or (QUICK_ROWS if effort.is_quick else ROWS):
            outcomes[name] = ROWS[name](bench)
            for text in [*([table(outcomes[name].lines)] if outcomes[name].lines else []), *outcomes[name].notes]:
                log.info(text)
            about = {
                "began": began.isoformat(timespec="seconds"),
                "seconds": round((datetime.datetime.now() - began).total_seconds()),
                "effort": {**vars(effort), "engine_config": effort.engine_config.name},
                "load_average": {"before": load_before, "after": load_average()},
                "peak_flops": peaks,
            }
            write_results(path, machine, outcomes, about)
    _show([line for outcome in outcomes.values() for line in outcome.lines], path, effort)
    return 0


def _show(lines: Sequence[Line], path: Path, effort: Effort) -> None:
    draw(path.with_suffix(".png"), lines, path.stem)
    log.info("\n" + table(lines))
    if effort.is_quick:
        log.info("quick: everything is small, and few rounds are few; compare with the goals without --quick")
    log.info(f"{path} and {path.with_suffix('.png').name}; load {load_average()[0]}")


def _effort(arguments: argparse.Namespace) -> Effort:
    usual = Effort(rounds=1, steps=1, warm_up=1, is_quick=True) if arguments.quick else Effort()
    return replace(
        usual,
        rounds=arguments.rounds or usual.rounds,
        steps=arguments.steps or usual.steps,
        threads=arguments.threads,
        engine_config=arguments.engine_config,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=ROWS, help="a row to measure; may be given again")
    parser.add_argument("--rounds", type=int, help=f"turns of each contestant (default: {Effort.rounds})")
    parser.add_argument("--steps", type=int, help=f"steps in a turn (default: {Effort.steps})")
    parser.add_argument("--threads", type=int, default=1, help="of each process (default: 1)")
    parser.add_argument("--engine_config", type=Path, default=ENGINE_CONFIG, help="default: ds_configs/bf16.json")
    parser.add_argument("--quick", action="store_true", help="see in about a minute that all of it works")
    parser.add_argument("--results_dir", type=Path, default=RESULTS_DIR, help="default: benchmarks/results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
