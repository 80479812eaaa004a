"""The TensorBoard files read back with TensorBoard's own reader and program, equal to metrics.jsonl."""
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader  # noqa: E402

from tests.program import Program, check, once, run_cases  # noqa: E402


@once
def trained(emo: Program) -> pathlib.Path:
    emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder}/run", "train.steps=5", "--quiet")
    return emo.folder / "run"


def tensorboard(*arguments) -> str:
    """The program that stands beside this Python, as the quick start's report calls it."""
    result = subprocess.run([pathlib.Path(sys.executable).parent / "tensorboard", *map(str, arguments)],
                            capture_output=True, text=True, timeout=300)
    check(result.returncode == 0, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result.stdout


def test_the_reader_finds_what_metrics_jsonl_has(emo):
    run = trained(emo)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    files = list((run / "tb").glob("events.out.tfevents.*"))
    check(len(files) == 1, f"{len(files)} event files")
    read: dict[int, dict[str, float]] = {}
    versions = 0
    for event in LegacyEventFileLoader(str(files[0])).Load():
        versions += event.file_version == "brain.Event:2"
        for value in event.summary.value:
            read.setdefault(event.step, {})[value.tag] = value.simple_value
    check(versions == 1, "no file version")
    check(sorted(read) == [1, 2, 3, 4, 5], f"steps {sorted(read)}")
    for line in lines:
        step = line.pop("step")
        check(set(line) == set(read[step]), "the tags are not those of metrics.jsonl")
        for tag, value in line.items():
            check(abs(read[step][tag] - value) <= 1e-6 * abs(value) + 1e-12, f"{tag}: {read[step][tag]}, {value}")
    check("train/CE loss" in lines[0] and "train/block 01/load imbalance" in lines[0], str(list(lines[0])))


def test_the_program_starts():
    check(tensorboard("--version").strip(), "no version")


def test_the_program_opens_a_run_s_folder(emo):
    shown = tensorboard("--inspect", "--logdir", trained(emo).parent)
    check("train/CE loss" in shown and "train/block 01/load imbalance" in shown, shown)


if __name__ == "__main__":
    run_cases(globals())
