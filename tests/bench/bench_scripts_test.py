"""What the benchmark scripts compute, without a clock: turns, medians, tables, errors, the memory formula."""
import pathlib
import sys
import types

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/bench")]
import compare_step  # noqa: E402
import experts_and_documents  # noqa: E402
import interleave  # noqa: E402
import memory_formula  # noqa: E402
import scaling  # noqa: E402
from tests.program import Program, check, run_cases  # noqa: E402


def test_turns() -> None:
    now, order = [0.0], []

    def job(name: str, seconds: float):
        def call():
            order.append(name)
            now[0] += seconds
            return len(order)
        return call

    said: list[str] = []
    jobs = {"a": job("a", 10), "b": job("b", 20)}
    results = interleave.in_turn(jobs, 5, minutes=1.6, clock=lambda: now[0], log=said.append)
    # Three rounds of 30 s fit into 96 s; every other one runs backwards.
    check(order == ["a", "b", "b", "a", "a", "b"], str(order))
    check(results == {"a": [1, 4, 5], "b": [2, 3, 6]}, str(results))
    check("3 of 5 rounds" in said[-1], said[-1])
    now[0], order[:] = 0.0, []
    interleave.in_turn(jobs, 2, minutes=0, clock=lambda: now[0], log=said.append)
    check(order == ["a", "b"], "the first round always runs")


def test_numbers() -> None:
    results = [{"x": 3.0, "share": {"router": r}} for r in (0.5, 0.1, 0.2)]
    check(interleave.median_of(results, "share.router") == 0.2, "median of what lies deeper")
    check(interleave.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |", "Markdown")
    result = {"tokens_per_second": 1e4, "share": dict.fromkeys(experts_and_documents.PARTS, 0.1)}
    cost = experts_and_documents.costs([result])
    check(abs(cost["all"] - 100) < 1e-9 and abs(cost["router"] - 10) < 1e-9, str(cost))
    check(experts_and_documents.row(["x"], cost, ["router", "head"]) == ["x", "100.0", "10.00", "10.00", "80.00"],
          "what is not shown is the rest")


def test_errors() -> None:
    for code, words in [("import sys; sys.exit('no such data')", ["exit code 1", "no such data"]),
                        ("print('hello')", ["not one JSON object", "hello"])]:
        try:
            interleave.run(interleave.Program("peer", [sys.executable, "-c", code]))
            check(False, "an error was expected")
        except interleave.BenchError as error:
            check(all(word in str(error) for word in ["peer", *words]), str(error))
    slow = interleave.Program("peer", [sys.executable, "-c", "import time; time.sleep(60)"], limit=0.1)
    try:
        interleave.run(slow)
        check(False, "a program past its limit")
    except interleave.TooSlow as error:
        check("0.1 s" in str(error), str(error))
    check(compare_step.run_peer(slow) == {"tokens_per_second": 0.0}, "a slow peer stops nothing")
    rates = {"emo": 6.0, compare_step.WHOLE_ROWS: 5.0, "emo bf16": 9.0, "OLMoE grouped_mm": 2.0, "OLMoE eager": 0.0,
             "OLMoE grouped_mm bf16": 4.0}
    row = compare_step.row("1", rates)
    check(row == ["1", "6", "5", "9", "2", "0", "4", "3.00", "2.50", "2.25"], str(row))
    check(compare_step.ratio("emo", dict.fromkeys(rates, 0.0)) == 0, "no rival in time")
    both = interleave.run_together([interleave.Program("p", [sys.executable, "-c", f"print({n})"]) for n in (1, 2)])
    check(both == [1, 2], str(both))


def test_the_memory_formula_by_hand() -> None:
    config = memory_formula.read_config(ROOT / "configs/bench-107m.yaml", ["train.batch=8"])
    dense = sum(memory_formula.dense_buckets(config))
    total = dense + 8 * memory_formula.experts_of_layer(config)
    check(total == 2 * 8192 * 256 + 256 + 8 * (4 * 256**2 + 2 * 256 + 128 * 256 + 128 * 3 * 256 * 128), str(total))
    one = memory_formula.memory_bytes(config)
    layouts = {"ep": memory_formula.Layout(2, 2), "dp": memory_formula.Layout(2, 1)}
    two = {name: memory_formula.memory_bytes(config, layout) for name, layout in layouts.items()}
    check(one / 2 < two["ep"] < two["dp"] < one, f"{one} alone, {two} on two ranks")
    try:
        memory_formula.memory_bytes({**config, "parallel": {"recompute": "block"}})
        check(False, "recomputation is not in the formula")
    except ValueError as error:
        check("recomputation" in str(error), str(error))


def test_the_memory_formula_as_measured(emo: Program) -> None:
    options = types.SimpleNamespace(batch=1, layers=1)
    steps = ["--steps", 1, "--warmup", 1]
    for name, ranks in scaling.RANKS.items():
        run = {"ranks": ranks if ranks > 1 else 0}
        overrides = scaling.overrides_of(name, options)
        measured = emo.json("bench", "step", scaling.CONFIG, *overrides, *steps, **run)["peak_memory_bytes"]
        libraries = emo.json("bench", "step", scaling.CONFIG, *scaling.NOTHING, f"train.batch={ranks}", *steps,
                             **run)["peak_memory_bytes"]
        config = memory_formula.read_config(ROOT / scaling.CONFIG, overrides)
        formula = memory_formula.memory_bytes(config, memory_formula.layout_of(config, ranks))
        ratio = (measured - libraries) / formula
        check(0.7 < ratio < 1.25, f"{name}: measured / formula is {ratio:.2f}")


if __name__ == "__main__":
    run_cases(globals())
