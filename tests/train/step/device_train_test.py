"""`emo train` and `emo bench step` on the device path, its kernels as loops on the CPU, beside the CPU path.
With EMO_TEST_DEVICE=cuda, and the program of build/cuda, on as many GPUs as are there."""
import json
import os
import pathlib
import shutil
import sys

import numpy
from safetensors.numpy import load_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import Program, check, once, read_folder, run_cases  # noqa: E402

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
    losses = [step["train/CE loss"] for step in bf16(emo)]
    check(all(abs(a - b["train/CE loss"]) < 0.02 for a, b in zip(losses, cpu(emo), strict=True)), f"bf16: {losses}")
    check(losses != [b["train/CE loss"] for b in cpu(emo)], "bf16 changes nothing")


@once
def bf16(emo: Program) -> list[dict]:
    return train(emo, "bf16", ON_DEVICE, "parallel.precision=bf16")


def rounded(numbers: numpy.ndarray) -> numpy.ndarray:
    """The nearest bf16, ties to even, as 16-bit integers."""
    bits = numbers.view(numpy.uint32).astype(numpy.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def widened(bits: numpy.ndarray) -> numpy.ndarray:
    return (bits.astype(numpy.uint32) << 16).view(numpy.float32)


def masters_of(folder: pathlib.Path) -> dict[str, numpy.ndarray]:
    return {name.removeprefix("master/"): numbers for name, (_, numbers) in read_folder(folder, "optimizer").items()
            if name.startswith("master/")}


def test_a_bf16_checkpoint_has_masters(emo):
    bf16(emo)
    folder = emo.folder / "bf16" / "step-0000006"
    model, state, masters = read_folder(folder), read_folder(folder, "optimizer"), masters_of(folder)
    check(masters.keys() == model.keys() and len(state) == 3 * len(model), f"{len(masters)}, {len(model)}, {len(state)}")
    check({dtype for dtype, _ in model.values()} == {"BF16"} and {dtype for dtype, _ in state.values()} == {"F32"}, "types")
    check(all((rounded(masters[name]) == bits).all() for name, (_, bits) in model.items()), "not the nearest")
    check(any((masters[name] != widened(bits)).any() for name, (_, bits) in model.items()), "masters say no more")
    check(json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16", "torch_dtype")
    one(emo)
    fp32 = emo.folder / "one" / "step-0000006"
    check(not masters_of(fp32) and {dtype for dtype, _ in read_folder(fp32).values()} == {"F32"}, "masters of an fp32 model")
    emo.run("export", folder, emo.folder / "bf16-hf")
    check({dtype for dtype, _ in read_folder(emo.folder / "bf16-hf").values()} == {"BF16"}, "export")


def half_of(emo: Program, name: str, first: str) -> pathlib.Path:
    """The first half of a run, in a folder of its own."""
    (emo.folder / name).mkdir()
    shutil.copytree(emo.folder / first / "step-0000003", emo.folder / name / "step-0000003")
    return emo.folder / name


def files_of(emo: Program, name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (emo.folder / name / "step-0000006").glob("*.safetensors")}


def test_bf16_goes_on_to_the_bit(emo):
    bf16(emo)
    half_of(emo, "bf16-again", "bf16")
    train(emo, "bf16-again", ON_DEVICE, "parallel.precision=bf16")
    check(files_of(emo, "bf16-again") == files_of(emo, "bf16"), "other bits")


def test_bf16_goes_on_to_the_bit_on_two_ranks(emo):
    if not TWO:
        return
    for name, layout in {"bf16-dp": [], "bf16-ep": ["parallel.ep=2"]}.items():
        overrides = [ON_DEVICE, "parallel.precision=bf16", *layout]
        losses = [step["train/CE loss"] for step in train(emo, name, *overrides, ranks=2)]
        check(all(abs(a - b["train/CE loss"]) < 0.02 for a, b in zip(losses, bf16(emo), strict=True)), f"{name}: {losses}")
        half_of(emo, f"{name}-again", name)
        train(emo, f"{name}-again", *overrides, ranks=2)
        check(files_of(emo, f"{name}-again") == files_of(emo, name), f"{name}: other bits")
        folder = emo.folder / name / "step-0000006"
        model, masters = read_folder(folder), masters_of(folder)
        expected = masters_of(emo.folder / "bf16" / "step-0000006")
        check(masters.keys() == model.keys() == expected.keys(), f"{name}: tensors")
        for tensor, (_, bits) in model.items():
            check((rounded(masters[tensor]) == bits).all(), f"{name}: {tensor} is not the nearest")
            far = numpy.abs(masters[tensor] - expected[tensor]).mean()
            check(far < 0.05 * numpy.abs(expected[tensor]).mean(), f"{name}: {tensor} is far from one rank's, {far}")


def test_bf16_goes_on_on_the_cpu_and_back(emo):
    """From the masters: rounded weights would be off by more than the steps move them."""
    bf16(emo)
    folder = half_of(emo, "bf16-cpu", "bf16")
    losses = [step["train/CE loss"] for step in train(emo, "bf16-cpu")]
    check(all(abs(a - b["train/CE loss"]) < 0.02 for a, b in zip(losses, bf16(emo)[3:], strict=True)), f"{losses}")
    check({dtype for dtype, _ in read_folder(folder / "step-0000006").values()} == {"F32"}, "a model of the CPU is fp32")
    masters = masters_of(emo.folder / "bf16" / "step-0000003")
    frozen = emo.folder / "bf16-frozen"
    emo.run("train", "configs/tiny.yaml", f"run.folder={frozen}", f"run.start_from={emo.folder}/bf16/step-0000003",
            "run.take=all", "train.freeze=routed", f"train.steps={STEPS}", "checkpoint.every=3", "--quiet")
    name = "model.layers.0.mlp.experts.3.up_proj.weight"
    check((read_folder(frozen / "step-0000006")[name][1] == masters[name]).all(), "what is frozen is the master")
    weights = emo.folder / "bf16-weights"
    emo.run("train", "configs/tiny.yaml", f"run.folder={weights}", f"run.start_from={emo.folder}/bf16/step-0000003",
            "run.take=weights", "train.freeze=routed", "train.steps=1", "checkpoint.every=1", "--quiet")
    model = widened(read_folder(emo.folder / "bf16" / "step-0000003")[name][1])
    check((read_folder(weights / "step-0000001")[name][1] == model).all(), "taken weights are the model's")
    back = emo.folder / "bf16-back"
    emo.run("train", "configs/tiny.yaml", f"run.folder={back}", f"run.start_from={folder}/step-0000006", "run.take=all",
            ON_DEVICE, "parallel.precision=bf16", "train.steps=7", "--quiet")
    check(masters_of(back / "step-0000007"), "no masters after the way back")


def test_a_damaged_master_is_told(emo):
    bf16(emo)
    folder = half_of(emo, "bf16-damaged", "bf16") / "step-0000003"
    path = next(folder.glob("optimizer-*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))
    error = emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder}/bf16-damaged", ON_DEVICE,
                    "parallel.precision=bf16", f"train.steps={STEPS}", "--quiet", expect=None)
    check(error.returncode == 65 and path.name in error.stderr, f"{error.returncode} {error.stderr}")


def goes_on(emo: Program, name: str, first: str, *rest, ranks: int = 0) -> None:
    """Half of the run on one path, half on the other."""
    half_of(emo, name, first)
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
    check(all(bench["share"][kind] > 0 for kind in ("router", "exchange", "experts", "attention", "head", "optimizer")),
          f"{bench['share']}")
    check(abs(sum(bench["share"].values()) - 1) < 0.02, f"{bench['share']}")


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
