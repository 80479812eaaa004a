"""`emo train` and `emo bench step` on the device path, its kernels as loops on the CPU, beside the CPU path.
With EMO_TEST_DEVICE=cuda, and the program of build/cuda, on as many GPUs as are there."""
import json
import os
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import Program, check  # noqa: E402

STEPS = 6
# Sums in another order; a choice of experts within rounding of another may flip in later steps.
DEVICE = os.environ.get("EMO_TEST_DEVICE", "emulated")
GPUS = int(os.environ.get("EMO_TEST_GPUS", "1"))
TOLERANCE = 1e-5 if DEVICE == "emulated" else 1e-4


def main() -> None:
    with Program(sys.argv[1]) as emo:
        def train(name: str, *overrides, ranks: int = 0) -> list[dict]:
            emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder / name}", f"train.steps={STEPS}",
                    "checkpoint.every=3", "checkpoint.keep=0", "--quiet", *overrides, ranks=ranks)
            return [json.loads(line) for line in open(emo.folder / name / "metrics.jsonl")]

        def same(found: list[dict], expected: list[dict], what: str) -> None:
            for a, b in zip(found, expected[-len(found):], strict=True):
                for key, value in b.items():
                    if key.startswith("throughput/") or "exchange/" in key or not isinstance(value, float):
                        continue
                    check(abs(a[key] - value) <= TOLERANCE * max(1, abs(value)), f"{what}: {key} {a[key]}, {value}")
                check(not b.keys() - a.keys(), f"{what} lacks {b.keys() - a.keys()}")

        cpu = train("cpu")
        device = f"parallel.device={DEVICE}"
        two = DEVICE == "emulated" or GPUS >= 2  # ranks are possible
        same(train("one", device), cpu, "one rank")
        same(train("slices", device, "parallel.slices=2"), cpu, "slices")
        if two:
            same(train("ep", device, "parallel.ep=2", ranks=2), cpu, "ep 2")
            same(train("dp", device, ranks=2), cpu, "dp 2")
        losses = [step["train/CE loss"] for step in train("bf16", device, "parallel.precision=bf16")]
        check(all(abs(a - b["train/CE loss"]) < 0.02 for a, b in zip(losses, cpu)), f"bf16: {losses}")
        check(losses != [b["train/CE loss"] for b in cpu], "bf16 changes nothing")

        # Half of the run on one path, half on the other.
        halves = [("there", "cpu", [device]), ("back", "one", [])] + [("back-on-two", "ep", [])] * two
        for name, first, rest in halves:
            (emo.folder / name).mkdir()
            shutil.copytree(emo.folder / first / "step-0000003", emo.folder / name / "step-0000003")
            same(train(name, *rest, ranks=2 if name == "back-on-two" else 0), cpu[3:], name)

        bench = emo.json("bench", "step", "configs/tiny.yaml", device, "--steps", 1)
        check(bench["device"] == DEVICE and bench["tokens_per_second"] > 0 and bench["gemm_peak_flops"] > 0, "bench")
        trace = emo.folder / "trace.json"
        emo.json("bench", "step", "configs/tiny.yaml", device, "--steps", 1, "--trace", trace)
        names = [event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]]
        check(any("_grouped_mm" in name for name in names), "no grouped product in the trace")
        check(DEVICE != "cuda" or any("run_each_row" in name for name in names), "no kernel of ours in the trace")
        for overrides, hints in (
                ([device, "parallel.zero=2"], ["zero must be 1"]),
                ([device, "parallel.recompute=moe"], ["none or block"]),
                ([device, "model.d_expert=12"], ["multiples of 8", "12"]),
                (["parallel.device=gpu"], ["cuda", "emulated"])):
            error = emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder}/no", *overrides, expect=64).stderr
            check(all(hint in error for hint in hints), error)


if __name__ == "__main__":
    main()
