"""`emo train` and `emo bench step` on the device path, its kernels as loops on the CPU, beside the CPU path.
With EMO_TEST_DEVICE=cuda, and the program of build/cuda, on as many GPUs as are there."""
import json
import os
import pathlib
import shutil
import sys

from safetensors.numpy import load_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import Program, check, once, run_cases  # noqa: E402

STEPS = 6
# Sums in another order; a choice of experts within rounding of another may flip in later steps.
DEVICE = os.environ.get("EMO_TEST_DEVICE", "emulated")
GPUS = int(os.environ.get("EMO_TEST_GPUS", "1"))
TOLERANCE = 1e-5 if DEVICE == "emulated" else 1e-4


TWO = DEVICE == "emulated" or GPUS >= 2  # ranks are possible
ON_DEVICE = f"parallel.device={DEVICE}"


def train(emo: Program, name: str, *overrides, ranks: int = 0) -> list[dict]:
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


@once
def cpu(emo: Program) -> list[dict]:
    return train(emo, "cpu")


@once
def one(emo: Program) -> list[dict]:
    return train(emo, "one", ON_DEVICE)


@once
def ep(emo: Program) -> list[dict]:
    return train(emo, "ep", ON_DEVICE, "parallel.ep=2", ranks=2)


def test_one_rank(emo):
    same(one(emo), cpu(emo), "one rank")


def test_slices(emo):
    same(train(emo, "slices", ON_DEVICE, "parallel.slices=2"), cpu(emo), "slices")


def test_two_ranks(emo):
    if TWO:
        same(ep(emo), cpu(emo), "ep 2")
        same(train(emo, "dp", ON_DEVICE, ranks=2), cpu(emo), "dp 2")
        same(train(emo, "zero", ON_DEVICE, "parallel.zero=2", "parallel.slices=2", ranks=2), cpu(emo), "dp 2, zero 2")


def test_what_the_cpu_has_the_device_has(emo):
    """Frozen parts and their checkpoints, normalised queries, experts computed again, budgets by layer."""
    for name, overrides in {"frozen": ["train.freeze=routed_shared", "parallel.recompute=moe"], "qk": ["model.qk_norm=true"],
                            "budgets": ["model.experts_per_layer=[32, 24]", "routing.pool=none"]}.items():
        expected = train(emo, f"{name}-cpu", *overrides)
        same(train(emo, f"{name}-device", *overrides, ON_DEVICE), expected, name)
        if TWO:
            same(train(emo, f"{name}-ep", *overrides, ON_DEVICE, "parallel.ep=2", ranks=2), expected, f"{name}, ep 2")
    first, last = (load_file(emo.folder / "frozen-device" / f"step-{step:07}" / "model-00001-of-00001.safetensors")
                   for step in (3, 6))
    moved = {name for name, tensor in last.items() if (tensor != first[name]).any()}
    check(not any("experts" in name for name in moved) and any("gate.weight" in name for name in moved), f"{moved}")


def test_traffic_is_counted(emo):
    """The same rows to the same experts; the lists that say who wants what are of another form."""
    if not TWO:
        return
    expected, found = (train(emo, name, "parallel.ep=2", *device, ranks=2)[-1]
                       for name, device in (("traffic-cpu", []), ("traffic", [ON_DEVICE])))
    for key in [key for key in expected if "exchange/" in key and "wait" not in key]:
        near = 1e-9 if "max over mean" in key else 0.05
        check(abs(found[key] - expected[key]) <= near * expected[key] and found[key] > 0, f"{key} {found[key]}, {expected[key]}")
    check(not any("wait" in key for key in found), "waiting that was not measured")
    bench = emo.json("bench", "step", "configs/tiny.yaml", ON_DEVICE, "parallel.ep=2", "--steps", 1, ranks=2)
    check(bench["exchange_bytes_per_step"] > 0 and "exchange_wait_seconds_per_step" not in bench, f"{bench}")
    emo.run("bench", "step", "configs/tiny.yaml", ON_DEVICE, "parallel.ep=2", "--steps", 1, ranks=2)


def test_bf16(emo):
    losses = [step["train/CE loss"] for step in train(emo, "bf16", ON_DEVICE, "parallel.precision=bf16")]
    check(all(abs(a - b["train/CE loss"]) < 0.02 for a, b in zip(losses, cpu(emo), strict=True)), f"bf16: {losses}")
    check(losses != [b["train/CE loss"] for b in cpu(emo)], "bf16 changes nothing")


def goes_on(emo: Program, name: str, first: str, *rest, ranks: int = 0) -> None:
    """Half of the run on one path, half on the other."""
    (emo.folder / name).mkdir()
    shutil.copytree(emo.folder / first / "step-0000003", emo.folder / name / "step-0000003")
    same(train(emo, name, *rest, ranks=ranks), cpu(emo)[3:], name)


def test_from_the_cpu_to_the_device(emo):
    cpu(emo)
    goes_on(emo, "there", "cpu", ON_DEVICE)


def test_from_the_device_to_the_cpu(emo):
    one(emo)
    goes_on(emo, "back", "one")


def test_from_two_devices_to_two_ranks_of_the_cpu(emo):
    if TWO:
        ep(emo)
        goes_on(emo, "back-on-two", "ep", ranks=2)


def test_bench_step(emo):
    bench = emo.json("bench", "step", "configs/tiny.yaml", ON_DEVICE, "--steps", 1)
    check(bench["device"] == DEVICE and bench["tokens_per_second"] > 0 and bench["gemm_peak_flops"] > 0, "bench")


def test_a_trace_has_products_and_kernels(emo):
    trace = emo.folder / "trace.json"
    emo.json("bench", "step", "configs/tiny.yaml", ON_DEVICE, "--steps", 1, "--trace", trace)
    names = [event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]]
    check(any("_grouped_mm" in name for name in names), "no grouped product in the trace")
    check(DEVICE != "cuda" or any("run_each_row" in name for name in names), "no kernel of ours in the trace")


def test_what_the_device_cannot_do_is_refused(emo):
    for overrides, hints in (
            ([ON_DEVICE, "model.d_expert=10"], ["multiples of 4", "10"]),
            ([ON_DEVICE, "parallel.precision=bf16", "model.d_expert=12"], ["multiples of 8", "12"]),
            (["parallel.device=gpu"], ["cuda", "emulated"])):
        error = emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder}/no", *overrides, expect=64).stderr
        check(all(hint in error for hint in hints), error)


if __name__ == "__main__":
    run_cases(globals())
