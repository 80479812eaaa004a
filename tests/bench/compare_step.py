"""emo's training step beside its peers on one process. Called by compare_step.sh."""
import functools
import json
import statistics
import sys

from interleave import (BenchError, Program, TooSlow, arguments, emo_step, in_turn, main, median_of, positive, run,
                        table)

CONFIG, THREADS = "configs/bench-107m.yaml", 2
PEERS = {"OLMoE grouped_mm": ("grouped_mm", "fp32"), "OLMoE eager": ("eager", "fp32"),
         "OLMoE grouped_mm bf16": ("grouped_mm", "bf16")}
# The same with attention over whole rows, which is what the peers do.
WHOLE_ROWS = "emo, whole rows"
EMOS = {"emo": [], WHOLE_ROWS: ["data.synthetic.min_length=1024", "data.synthetic.max_length=1024"],
        "emo bf16": ["parallel.precision=bf16"]}
# Whom each of ours is held against: the best of these.
RIVALS = {"emo": list(PEERS)[:2], WHOLE_ROWS: list(PEERS)[:2], "emo bf16": list(PEERS)}
REMARKS = """\
What differs, beside the programs:
- documents: emo attends inside documents of 256 tokens, and each has a pool of experts; OLMoE is told of no \
documents and attends over the whole row of 1024. "emo, whole rows" has one document a row, so attention is as \
OLMoE's; emo's own work is {share:.0%} of that.
- shared expert: emo has 127 routed experts with 7 a token and one that all tokens use; OLMoE has 128 with 8 a \
token and none that is shared. The products of a token are as many.
- count: 4096 tokens over the time from zeroed gradients to updated parameters, the median of {steps} steps; \
making the batch is outside. A peer that takes longer than {limit} s for a run counts as 0.
- All clip, all use AdamW (OLMoE torch's fused one). fp32 is held against the best peer in fp32, bf16 against the \
best of all; bf16 of OLMoE is torch's autocast."""


def programs(steps: int, layers: int, limit: float) -> dict[str, Program]:
    cut = f"model.n_layers={layers}"
    all_programs = {name: emo_step(name, CONFIG, cut, *overrides, steps=steps, threads=THREADS)
                    for name, overrides in EMOS.items()}
    for name, (experts, precision) in PEERS.items():
        command = [sys.executable, "tests/bench/olmoe_step.py", "--experts", experts, "--precision", precision,
                   "--steps", str(steps), "--layers", str(layers)]
        all_programs[name] = Program(name, command, {"OMP_NUM_THREADS": str(THREADS)}, limit)
    return all_programs


def run_peer(program: Program) -> dict:
    """A peer that is past its limit counts as 0 tokens per second and stops nothing."""
    try:
        return run(program)
    except TooSlow as slow:
        print(f"[bench] {slow}", file=sys.stderr)
        return {"tokens_per_second": 0.0}


def rate(result: dict) -> float:
    """Tokens per second; peers tell those of each step."""
    rates = result["tokens_per_second"]
    return statistics.median(rates) if isinstance(rates, list) else rates


def ratio(ours: str, rates: dict[str, float]) -> float:
    """To the best rival; 0 where none was done in time."""
    best = max(rates[name] for name in RIVALS[ours])
    return rates[ours] / best if best > 0 else 0.0


def row(label: str, rates: dict[str, float]) -> list[str]:
    return [label, *(f"{rate:.0f}" for rate in rates.values()), *(f"{ratio(ours, rates):.2f}" for ours in EMOS)]


def body() -> None:
    parser = arguments(__doc__, ("rounds", 3, "times that each program runs"))
    parser.add_argument("--steps", type=positive, default=3, help="timed steps of a run (default 3)")
    parser.add_argument("--layers", type=positive, default=8, help="of all models (default 8)")
    parser.add_argument("--limit", type=positive, default=150, help="seconds of a peer's run (default 150)")
    options = parser.parse_args()
    jobs = {name: functools.partial(run_peer if name in PEERS else run, program)
            for name, program in programs(options.steps, options.layers, options.limit).items()}
    results = in_turn(jobs, options.rounds, options.minutes)
    rates = {name: [rate(result) for result in of_program] for name, of_program in results.items()}
    medians = {name: statistics.median(of_program) for name, of_program in rates.items()}
    if not any(medians[name] for name in PEERS):
        raise BenchError(f"no peer was done within {options.limit} s; --limit gives them more")
    if options.json:
        print(json.dumps({"median_tokens_per_second": medians,
                          "ratio_to_best_peer": {ours: ratio(ours, medians) for ours in EMOS}, "runs": results}))
        return
    rows = [row(str(i + 1), {name: of_program[i] for name, of_program in rates.items()})
            for i in range(len(rates["emo"]))]
    rows.append(row("median", medians))
    print(table(["run", *(f"{name}, tokens/s" for name in rates), *(f"{ours} / best" for ours in EMOS)], rows))
    print()
    for name in EMOS:
        step, passes = (median_of(results[name], key) for key in ("peak_fraction", "peak_fraction_forward_backward"))
        print(f"{name}: {passes:.0%} of the matrix-product peak measured in the same run over forward and backward, "
              f"{step:.0%} with the optimizer.")
    share = median_of(results["emo"], "flops_per_token") / median_of(results[WHOLE_ROWS], "flops_per_token")
    print(REMARKS.format(steps=options.steps, limit=options.limit, share=share))


if __name__ == "__main__":
    main(body)
