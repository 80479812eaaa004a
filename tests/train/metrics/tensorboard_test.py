"""The TensorBoard files read back with TensorBoard's own reader, equal to metrics.jsonl."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader  # noqa: E402

from tests.program import Program, check  # noqa: E402


def main() -> None:
    with Program(sys.argv[1]) as emo:
        run = emo.folder / "run"
        emo.run("train", "configs/tiny.yaml", f"run.folder={run}", "train.steps=5", "--quiet")
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
    print("TensorBoard reads what was written")


if __name__ == "__main__":
    main()
