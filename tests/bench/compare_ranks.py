"""emo's training step over ranks beside the same over Gloo. Called by compare_ranks.sh."""
import functools
import json
import sys

from interleave import Program, arguments, emo_step, in_turn, main, median_of, positive, run, table

CONFIG = "configs/bench-107m.yaml"
GLOO = "torch, Gloo"
REMARKS = """\
Sent: what a rank sends to others in a step for the experts, rows and lists, forward and backward, counted on both \
sides. emo sends a token once to each rank that has an expert for it, the Gloo program once for each expert. For \
dense parameters both move {gradients:.1f} MB a rank and step beside that: Gloo's all-reduce of gradients, emo's \
reduce-scatter of gradients and all-gather of parameters.
Peak memory is the largest rank's process, libraries included; emo's moments of dense parameters are spread over \
ranks.
What differs, beside the programs: tokens are random in the Gloo program and synthetic documents in emo, of 256 \
tokens in both; both draw pools of experts. Loss of the Gloo program: {loss:.2f}."""


def programs(options) -> dict[str, Program]:
    ranks = options.ranks
    gloo = [sys.executable, "tests/bench/gloo_moe_step.py", "--ranks", str(ranks), "--layers", str(options.layers),
            "--batch", str(options.batch), "--steps", str(options.steps)]
    ours = emo_step("emo", CONFIG, f"model.n_layers={options.layers}", f"train.batch={options.batch * ranks}",
                    f"parallel.ep={ranks}", ranks=ranks, steps=options.steps)
    return {"emo": ours, GLOO: Program(GLOO, gloo, {"OMP_NUM_THREADS": "1"})}


def row(label: str, ours: dict, theirs: dict) -> list[str]:
    values = [label]
    for key, unit, digits in (("tokens_per_second", 1, 0), ("exchange_bytes_per_step", 1e6, 1),
                              ("peak_memory_bytes", 2**20, 0)):
        ratio = f"{ours[key] / theirs[key]:.2f}" if theirs[key] else ""
        values += [f"{ours[key] / unit:.{digits}f}", f"{theirs[key] / unit:.{digits}f}", ratio]
    return values


def body() -> None:
    parser = arguments(__doc__, ("ranks", 2, "of both programs"), ("rounds", 3, "times that each program runs"))
    parser.add_argument("--batch", type=positive, default=2, help="rows of 1024 tokens of a rank (default 2)")
    parser.add_argument("--steps", type=positive, default=3, help="timed steps of a run (default 3)")
    parser.add_argument("--layers", type=positive, default=8, help="of both models (default 8)")
    options = parser.parse_args()
    check = [sys.executable, "tests/bench/gloo_moe_step.py", "--check", "--ranks", str(options.ranks)]
    run(Program("check of the Gloo program", check))
    jobs = {name: functools.partial(run, program) for name, program in programs(options).items()}
    results = in_turn(jobs, options.rounds, options.minutes)
    keys = ["tokens_per_second", "exchange_bytes_per_step", "peak_memory_bytes"]
    medians = {name: {key: median_of(of_program, key) for key in keys} for name, of_program in results.items()}
    if options.json:
        print(json.dumps({"ranks": options.ranks, "median": medians, "runs": results,
                          "ratio": medians["emo"]["tokens_per_second"] / medians[GLOO]["tokens_per_second"]}))
        return
    header = ["run"]
    for what in ("tokens/s", "MB sent", "peak MiB"):
        header += [f"emo {what}", f"Gloo {what}", "ratio"]
    rows = [row(str(i + 1), ours, theirs) for i, (ours, theirs) in enumerate(zip(results["emo"], results[GLOO]))]
    rows.append(row("median", medians["emo"], medians[GLOO]))
    print(f"{options.ranks} ranks, {options.batch * 1024} tokens each, {options.layers} layers\n")
    print(table(header, rows))
    print("\n" + REMARKS.format(gradients=median_of(results[GLOO], "gradient_bytes_per_step") / 1e6,
                                loss=median_of(results[GLOO], "loss")))


if __name__ == "__main__":
    main(body)
