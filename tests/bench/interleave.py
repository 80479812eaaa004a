"""What the benchmark scripts share: programs run in turn, medians, tables.

Timings of two programs are compared only where they ran in turn in one go, so that a noisy neighbour
meets both. A *round* runs every program once; every other round runs them in reverse order, so that
none always follows the same one.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from launch.arguments import Arguments  # noqa: E402

EMO = "./build/release/emo"


class BenchError(Exception):
    """A message for the user; no traceback."""


class TooSlow(BenchError):
    """A program that did not end within its limit."""


@dataclass(frozen=True)
class Program:
    """A command that prints one JSON object, run from the repository's root."""
    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    limit: float | None = None  # seconds


def emo_step(name: str, config: str, *overrides: str, ranks: int = 1, steps: int = 3, warmup: int = 2,
             threads: int = 1) -> Program:
    """`emo bench step`, under mpirun where there are several ranks. `threads` are those of a rank."""
    command = [EMO, "bench", "step", config, *overrides, "--steps", str(steps), "--warmup", str(warmup), "--json"]
    if ranks > 1:
        command = ["./launch/mpirun.sh", str(ranks), *command]
    return Program(name, command, {"OMP_NUM_THREADS": str(threads)})


def start(program: Program) -> subprocess.Popen:
    try:
        return subprocess.Popen(list(program.command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                cwd=ROOT, env={**os.environ, **program.environment})
    except OSError as error:
        raise BenchError(f"cannot run {program.command[0]}: {error.strerror}") from error


def finish(program: Program, process: subprocess.Popen) -> dict:
    """What the program printed. BenchError with its last words where it failed; TooSlow past its limit."""
    try:
        out, error = process.communicate(timeout=program.limit)
    except subprocess.TimeoutExpired as late:
        process.kill()
        process.wait()
        raise TooSlow(f"{program.name}: not done after {program.limit:g} s; --limit gives it more") from late
    except BaseException:
        process.terminate()
        raise
    if process.returncode != 0:
        last = "\n".join(error.strip().splitlines()[-15:])
        raise BenchError(f"{program.name}: exit code {process.returncode} of {' '.join(program.command)}\n{last}")
    try:
        return json.loads(out)
    except ValueError as wrong:
        raise BenchError(f"{program.name}: standard output is not one JSON object: {out[:200]!r}") from wrong


def run(program: Program) -> dict:
    return finish(program, start(program))


def run_together(programs: Sequence[Program]) -> list[dict]:
    """Runs them all at the same time."""
    processes: list[subprocess.Popen] = []
    try:
        for program in programs:
            processes.append(start(program))
        return [finish(program, process) for program, process in zip(programs, processes)]
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()


Job = Callable[[], object]


def in_turn(jobs: dict[str, Job], repeats: int, minutes: float, clock: Callable[[], float] = time.monotonic,
            log: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)) -> dict[str, list]:
    """What each job returned, [repeats] each. No round begins that would not fit into `minutes` if it took as
    long as the longest so far; the first always runs."""
    results: dict[str, list] = {name: [] for name in jobs}
    begin, longest = clock(), 0.0
    for repeat in range(repeats):
        at = clock()
        if repeat > 0 and at - begin + longest > 60 * minutes:
            log(f"[bench] {repeat} of {repeats} rounds fit into {minutes:g} minutes")
            break
        names = list(jobs) if repeat % 2 == 0 else list(jobs)[::-1]
        for name in names:
            log(f"[bench {clock() - begin:4.0f}s] round {repeat + 1} of {repeats}: {name}")
            results[name].append(jobs[name]())
        longest = max(longest, clock() - at)
    return results


def median_of(results: Sequence[dict], key: str) -> float:
    """The median of a number that may lie deeper: "share.router"."""
    values = []
    for result in results:
        value = result
        for part in key.split("."):
            value = value[part]
        values.append(value)
    return statistics.median(values)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def arguments(usage: str, *positional: tuple[str, int, str]) -> argparse.ArgumentParser:
    """What all scripts take: `positional` (name, default, help), --minutes, --json."""
    parser = Arguments(usage.splitlines()[0])
    for name, default, text in positional:
        parser.add_argument(name, nargs="?", type=positive, default=default, help=f"{text} (default {default})")
    parser.add_argument("--minutes", type=float, default=8, help="begin no round that ends later (default 8)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    return parser


def positive(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def main(body: Callable[[], None]) -> None:
    """Runs a script's body; errors become one message."""
    try:
        body()
    except BenchError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
