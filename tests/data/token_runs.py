"""Small runs on token files, for the tests that compare them."""
import json
import typing

if typing.TYPE_CHECKING:
    from tests.program import Program

EOS = 1
VOCAB = ["--vocab-size", 256, "--eos-id", EOS]
CONFIG = ["configs/tiny.yaml", "train.steps=6", "data.sequence_length=256", "data.synthetic=none", f"data.eos_id={EOS}",
          "checkpoint.every=3", "checkpoint.keep=0", "--quiet"]
CLOCK = ("throughput/", "exchange/")


def losses(emo: "Program", name: str, *overrides, ranks: int = 0) -> list[dict]:
    """Trains in the folder `name`; a step's metrics each, without those that a clock decides."""
    emo.run("train", *CONFIG, f"run.folder={emo.folder / name}", *overrides, ranks=ranks)
    lines = [json.loads(line) for line in (emo.folder / name / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not any(part in key for part in CLOCK)} for line in lines]
