"""parallel.precision: training in bf16 learns what fp32 learns; where the CPU cannot, the run says so."""
import json
import os
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import Program, check, once, run_cases  # noqa: E402

TINY = "configs/tiny.yaml"


def last_loss(folder: pathlib.Path) -> float:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return sum(line["train/CE loss"] for line in lines[-5:]) / 5


def has_bf16(emo: Program) -> bool:
    """The CPU has the instructions, and EMO_ISA leaves them to us."""
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    cpu_has = all(flag in flags for flag in ["avx512_bf16", "avx512bw", "avx512dq", "avx512vl"])
    expected = cpu_has and os.environ.get("EMO_ISA", "") in ("", "avx512")
    version = emo.run("--version").stdout
    check(("bf16 products: AVX512_BF16" in version) == expected, version)
    return expected


RUNS = {"fp32": (0, []), "bf16": (0, ["parallel.precision=bf16"]), "two": (2, ["parallel.precision=bf16", "parallel.ep=2"])}


@once
def chosen(emo: Program) -> str:
    return "bf16" if has_bf16(emo) else "fp32"


@once
def trained(emo: Program) -> dict[str, str]:
    """By run what it said."""
    return {name: emo.run("train", TINY, f"run.folder={emo.folder / name}", *overrides, ranks=ranks).stderr
            for name, (ranks, overrides) in RUNS.items()}


def test_a_run_says_and_records_what_was_chosen(emo):
    for name, said in trained(emo).items():
        asked = name != "fp32"
        expected = chosen(emo) if asked else "fp32"
        check(f"threads a rank, {expected}" in said, said)
        check(("going on in fp32" in said) == (asked and chosen(emo) == "fp32"), said)
        recorded = (emo.folder / name / "config.yaml").read_text()
        check(f"  precision: {expected}\n" in recorded, recorded)


def test_bf16_learns_what_fp32_learns(emo):
    losses = {name: last_loss(emo.folder / name) for name in trained(emo)}
    check(losses["fp32"] < 5, f"nothing was learned: {losses}")  # ln 256 = 5.5
    for name in "bf16", "two":
        check(abs(losses[name] - losses["fp32"]) < 0.02, f"losses of the last steps: {losses}")
        check((losses[name] == losses["fp32"]) <= (chosen(emo) == "fp32"), f"bf16 took the fp32 path: {losses}")


def test_a_run_goes_on_in_another_precision(emo):
    trained(emo)
    shutil.copytree(emo.folder / "bf16", emo.folder / "onward")
    result = emo.run("train", TINY, f"run.folder={emo.folder / 'onward'}", "parallel.precision=fp32", "--quiet")
    check("going on from" in result.stderr, result.stderr)


def test_bench_step_says_the_precision(emo):
    for precision, expected in [("fp32", "fp32"), ("bf16", chosen(emo))]:
        bench = emo.json("bench", "step", TINY, f"parallel.precision={precision}", "--steps", 1)
        check(bench["precision"] == expected, bench)
        check(0 < bench["peak_fraction"] < 1, bench)


def test_another_precision_is_refused(emo):
    result = emo.run("train", TINY, "parallel.precision=fp16", expect=64)
    check("must be one of fp32, bf16" in result.stderr, result.stderr)


if __name__ == "__main__":
    run_cases(globals())
