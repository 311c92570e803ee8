"""Two commits, one benchmark, by turns: how many times as fast the second one is, with the spread.

    python benchmarks/compare.py HEAD~1 HEAD -- inference.py --size 128 --turns 1

Everything after `--` is a benchmark in this folder with its arguments; each of its runs writes JSON, and every number
of seconds in it is compared. Both commits are checked out in a temporary folder, the benchmark is that of each commit
unless `--benchmark-from` names one, and the package is that of the commit. The order of the two changes from turn to
turn. What is measured on a machine that others use too, or whose speed drifts, is a ratio and never a time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from common import write_results

ROOT = Path(__file__).resolve().parents[1]
_SECONDS = "seconds"


def git(repository: Path, *arguments: str) -> str:
    """What git prints; ends the program with git's own message if it fails."""
    done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def worktrees(repository: Path, commits: list[str]) -> Iterator[list[Path]]:
    """A checkout of each commit, which is gone afterwards, also where the program is terminated."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="vidtok-compare-"))
    places = [folder / str(i) for i in range(len(commits))]
    try:
        for commit, place in zip(commits, places, strict=True):
            git(repository, "worktree", "add", "--detach", str(place), commit)
        yield places
    finally:
        for place in places:
            if place.exists():
                git(repository, "worktree", "remove", "--force", str(place))
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def run_once(place: Path, benchmarks: Path, command: list[str]) -> dict[str, float]:
    """Run the benchmark with the package in `place`; the seconds that it wrote, by where they stand in its JSON."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        paths = [str(place / "src"), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            [sys.executable, str(benchmarks / command[0]), *command[1:], "--out", str(out)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if done.returncode or not out.is_file():
            raise SystemExit(f"{command[0]} failed in {place}:\n{done.stderr.strip()}")
        return dict(_seconds(json.loads(out.read_text())))


def _seconds(value: Any, path: str = "", name: str = "") -> Iterator[tuple[str, float]]:
    """All numbers below a name that ends in "seconds", with the names above it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _seconds(item, f"{path}.{name}".strip("."), key)
    elif isinstance(value, int | float) and value > 0 and name.endswith(_SECONDS) and not name.startswith("all_"):
        yield path if name == _SECONDS else f"{path}.{name}".strip("."), float(value)


def ratios(turns: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """For everything that both commits measured, how many times as fast the second one was, turn by turn."""
    compared = {}
    for key in turns[0][0]:
        if all(key in result for turn in turns for result in turn):
            each = [before[key] / after[key] for before, after in turns]
            compared[key] = {
                "times_as_fast": round(median(each), 3), "range": [round(min(each), 3), round(max(each), 3)],
                "each": [round(value, 3) for value in each],
            }  # fmt: skip
    return compared


def main() -> None:
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] A B -- BENCHMARK.py [its options]",
    )  # fmt: skip
    parser.add_argument("commits", nargs=2, metavar="COMMIT")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--benchmark-from", metavar="COMMIT|here", help="whose benchmark runs for both: a commit, or here"
    )
    parser.add_argument("--repository", type=Path, default=ROOT, help="where the commits are (default: here)")
    parser.add_argument("--out", type=Path, help="where to write JSON (default: nowhere)")
    options = parser.parse_args(arguments[:split])
    command = arguments[split + 1 :]
    if not command:
        parser.error("give the benchmark behind --, such as: -- inference.py --size 64")
    if options.turns < 1:
        parser.error(f"--turns is {options.turns}; expected at least 1")
    commits = [git(options.repository, "rev-parse", "--short", f"{commit}^{{commit}}") for commit in options.commits]
    extra = [options.benchmark_from] if options.benchmark_from not in (None, "here") else []
    with worktrees(options.repository, [*commits, *extra]) as places:
        benchmarks = [place / "benchmarks" for place in places[:2]]
        if options.benchmark_from:
            benchmarks = [places[2] / "benchmarks" if extra else ROOT / "benchmarks"] * 2
        turns = []
        for turn in range(options.turns):
            order = (0, 1) if turn % 2 == 0 else (1, 0)
            measured = {i: run_once(places[i], benchmarks[i], command) for i in order}
            turns.append((measured[0], measured[1]))
    compared = ratios(turns)
    if not compared:
        raise SystemExit(f"{command[0]} wrote no seconds that both commits have in common")
    width = max(map(len, compared))
    print(f"{commits[1]} beside {commits[0]}, {options.turns} turns, times as fast: median (lowest to highest)")
    for key, figures in compared.items():
        low, high = figures["range"]
        print(f"  {key:<{width}}  {figures['times_as_fast']:.2f} ({low:.2f} to {high:.2f})")
    if options.out is not None:
        figures = {"commits": commits, "command": command, "ratios": compared}
        write_results(f"compare-{commits[0]}-{commits[1]}", figures, options.out)


if __name__ == "__main__":
    main()
