"""parallel.precision: training in bf16 learns what fp32 learns; where the CPU cannot, the run says so."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import Program, check  # noqa: E402

TINY = "configs/tiny.yaml"


def last_loss(folder: pathlib.Path) -> float:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return sum(line["train/CE loss"] for line in lines[-5:]) / 5


def cpu_has_bf16() -> bool:
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    return all(flag in flags for flag in ["avx512_bf16", "avx512bw", "avx512dq", "avx512vl"])


def main() -> None:
    chosen = "bf16" if cpu_has_bf16() else "fp32"
    with Program(sys.argv[1]) as emo:
        for name, ranks, overrides in [("fp32", 0, []), ("bf16", 0, ["parallel.precision=bf16"]),
                                       ("two", 2, ["parallel.precision=bf16", "parallel.ep=2"])]:
            result = emo.run("train", TINY, f"run.folder={emo.folder / name}", *overrides, ranks=ranks)
            expected = chosen if overrides else "fp32"
            check(f"threads a rank, {expected}" in result.stderr, result.stderr)
            check(("going on in fp32" in result.stderr) == (bool(overrides) and chosen == "fp32"), result.stderr)
            recorded = (emo.folder / name / "config.yaml").read_text()
            check(f"  precision: {expected}\n" in recorded, recorded)
        losses = {name: last_loss(emo.folder / name) for name in ["fp32", "bf16", "two"]}
        check(losses["fp32"] < 5, f"nothing was learned: {losses}")  # ln 256 = 5.5
        for name in "bf16", "two":
            check(abs(losses[name] - losses["fp32"]) < 0.02, f"losses of the last steps: {losses}")
            check((losses[name] == losses["fp32"]) <= (chosen == "fp32"), f"bf16 took the fp32 path: {losses}")

        # A run may go on in another precision.
        result = emo.run("train", TINY, f"run.folder={emo.folder / 'bf16'}", "parallel.precision=fp32",
                         "--quiet")
        check("going on from" in result.stderr, result.stderr)

        for precision, expected in [("fp32", "fp32"), ("bf16", chosen)]:
            bench = emo.json("bench", "step", TINY, f"parallel.precision={precision}", "--steps", 1)
            check(bench["precision"] == expected, bench)
            check(0 < bench["peak_fraction"] < 1, bench)
        result = emo.run("train", TINY, "parallel.precision=fp16", expect=64)
        check("must be one of fp32, bf16" in result.stderr, result.stderr)
    print(f"losses {losses}")


if __name__ == "__main__":
    main()
