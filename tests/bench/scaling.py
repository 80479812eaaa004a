"""emo's training step on one rank and on two. Called by scaling.sh."""
import functools
import json
import statistics

from interleave import (ROOT, Program, arguments, emo_step, in_turn, main, median_of, positive, run, run_together,
                        table)
from memory_formula import layout_of, memory_bytes, read_config

CONFIG = "configs/bench-107m.yaml"
TOGETHER = "two alone, together"
RANKS = {"1 rank": 1, "ep 2": 2, "dp 2": 2}
# A config with next to nothing in memory: what is measured is libraries and the bench's own matrices.
NOTHING = ["model.n_layers=1", "model.vocab_size=64", "model.d_model=16", "model.n_heads=2", "model.d_expert=8",
           "model.num_experts=9", "model.top_k=2", "routing.pool=none", "data.synthetic.vocab_size=64",
           "data.synthetic.min_length=16", "data.synthetic.max_length=16", "data.sequence_length=16"]
REMARKS = """\
ratio: to one rank in the same round, the median of rounds. efficiency: ratio / ranks. ceiling: ratio / that of \
two single ranks that run at the same time and know nothing of each other, so what is lost there is what the ranks' \
talk costs, not what sharing the machine does.
memory: the largest rank's; libraries: the peak of the same program on a model of {nothing:.1f} MiB with as many \
ranks; formula: docs/performance.md, "Memory"."""


def overrides_of(name: str, options) -> list[str]:
    return [f"train.batch={options.batch * RANKS[name]}", f"model.n_layers={options.layers}",
            f"parallel.ep={2 if name == 'ep 2' else 1}"]


def program(name: str, options) -> Program:
    return emo_step(name, CONFIG, *overrides_of(name, options), ranks=RANKS[name], steps=options.steps)


def library_bytes(ranks: int) -> float:
    nothing = emo_step("libraries", CONFIG, *NOTHING, f"train.batch={ranks}", ranks=ranks, steps=1, warmup=1)
    return run(nothing)["peak_memory_bytes"]


def two_alone(single: Program) -> dict:
    return {"tokens_per_second": sum(r["tokens_per_second"] for r in run_together([single, single]))}


def speed_rows(results: dict[str, list[dict]]) -> list[dict]:
    def ratio(name: str, base: str) -> float:
        return statistics.median(a["tokens_per_second"] / b["tokens_per_second"]
                                 for a, b in zip(results[name], results[base]))
    rows = []
    for name in results:
        ranks = RANKS.get(name, 2)
        rows.append({"layout": name, "tokens_per_second": median_of(results[name], "tokens_per_second"),
                     "ratio": ratio(name, "1 rank"), "efficiency": ratio(name, "1 rank") / ranks,
                     "of_ceiling": ratio(name, TOGETHER) if ranks > 1 else None})
    return rows


def memory_rows(results: dict[str, list[dict]], libraries: dict[int, float], options) -> list[dict]:
    rows = []
    for name, ranks in RANKS.items():
        config = read_config(ROOT / CONFIG, overrides_of(name, options))
        formula = memory_bytes(config, layout_of(config, ranks))
        measured = median_of(results[name], "peak_memory_bytes")
        rows.append({"layout": name, "measured": measured, "libraries": libraries[ranks], "formula": formula,
                     "measured_over_formula": (measured - libraries[ranks]) / formula})
    return rows


def body() -> None:
    parser = arguments(__doc__, ("rounds", 3, "times that each layout runs"))
    parser.add_argument("--batch", type=positive, default=2, help="rows of 1024 tokens of a rank (default 2)")
    parser.add_argument("--steps", type=positive, default=3, help="timed steps of a run (default 3)")
    parser.add_argument("--layers", type=positive, default=8, help="of the model (default 8)")
    options = parser.parse_args()
    jobs = {name: functools.partial(run, program(name, options)) for name in RANKS}
    jobs[TOGETHER] = functools.partial(two_alone, program("1 rank", options))
    libraries = {ranks: library_bytes(ranks) for ranks in (1, 2)}
    results = in_turn(jobs, options.rounds, options.minutes)
    speed, memory = speed_rows(results), memory_rows(results, libraries, options)
    if options.json:
        print(json.dumps({"speed": speed, "memory": memory, "runs": results}))
        return
    print(table(["layout", "tokens/s", "ratio", "efficiency", "of the ceiling"],
                [[r["layout"], f"{r['tokens_per_second']:.0f}", f"{r['ratio']:.2f}", f"{r['efficiency']:.0%}",
                  f"{r['of_ceiling']:.0%}" if r["of_ceiling"] else ""] for r in speed]))
    print()
    print(table(["layout", "peak of a rank, MiB", "libraries, MiB", "formula, MiB", "(peak - libraries) / formula"],
                [[r["layout"], *(f"{r[key] / 2**20:.0f}" for key in ("measured", "libraries", "formula")),
                  f"{r['measured_over_formula']:.2f}"] for r in memory]))
    nothing = read_config(ROOT / CONFIG, [*NOTHING, "train.batch=1"])
    print("\n" + REMARKS.format(nothing=memory_bytes(nothing) / 2**20))


if __name__ == "__main__":
    main(body)
