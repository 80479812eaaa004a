"""What a token costs against the number of experts and of documents. Called by experts_and_documents.sh."""
import functools
import json

from interleave import Program, arguments, emo_step, in_turn, main, median_of, positive, run, table

CONFIG, THREADS = "configs/bench-107m.yaml", 2
EXPERTS = [16, 32, 64, 128, 256, 512]  # E, routed
LENGTHS = [1024, 512, 256, 64, 16]     # tokens of a document
ROUTED_PER_TOKEN = 7                   # K
SEQUENCE, TOKENS_OF_EXPERT = 256, 32   # with experts: a batch has 32 E tokens, so 32 K rows an expert
VOCABULARY = 1024  # with experts: small, so that the head does not hide them
BATCH, ROW = 4, 1024                   # with documents
PARTS = ["router", "experts", "attention", "head", "optimizer", "exchange", "other"]
REMARKS = """\
Microseconds of a step for each of its tokens, medians; parts are each median's share. router: its product with the \
tokens, scores, pools, top-k and their gradients. optimizer: clipping and AdamW, once a step for every parameter."""
OF_EXPERTS = """\
A router's product costs a token D E, so it grows with the experts; the optimizer's work is per parameter, and here \
parameters grow with the tokens. The experts' own part stays flat where products of {rows} rows are as fast whatever \
their number."""
OF_DOCUMENTS = """\
Attention has scores of L (L + 1) / 2 pairs a document of L tokens and 4 D^2 for its projections, which do not \
change. Pools are one a document and layer, in the router's part."""


def with_experts(E: int, options) -> Program:
    return emo_step(f"{E} experts", CONFIG, f"model.num_experts={E + 1}", f"model.top_k={ROUTED_PER_TOKEN + 1}",
                    f"model.n_layers={min(options.layers, 2)}", f"model.vocab_size={VOCABULARY}",
                    f"data.synthetic.vocab_size={VOCABULARY}", f"routing.pool={{min: 8, max: {E}}}",
                    f"data.sequence_length={SEQUENCE}", f"train.batch={E * TOKENS_OF_EXPERT // SEQUENCE}",
                    steps=options.steps, warmup=1, threads=THREADS)


def with_documents(length: int, options) -> Program:
    return emo_step(f"documents of {length}", CONFIG, f"model.n_layers={options.layers}", f"train.batch={BATCH}",
                    f"data.sequence_length={ROW}", f"data.synthetic.min_length={length}",
                    f"data.synthetic.max_length={length}", steps=options.steps, warmup=1, threads=THREADS)


def costs(results: list[dict]) -> dict[str, float]:
    """Microseconds for a token: in all, and in each part."""
    parts = [{"all": 1e6 / r["tokens_per_second"], **{p: r["share"][p] * 1e6 / r["tokens_per_second"] for p in PARTS}}
             for r in results]
    return {key: median_of(parts, key) for key in ["all", *PARTS]}


def row(first: list[str], cost: dict[str, float], shown: list[str]) -> list[str]:
    rest = cost["all"] - sum(cost[part] for part in shown)
    return [*first, f"{cost['all']:.1f}", *(f"{cost[part]:.2f}" for part in shown), f"{rest:.2f}"]


def experts_table(results: dict[str, list[dict]]) -> str:
    shown = ["router", "experts", "optimizer", "attention", "head"]
    rows = []
    for E in EXPERTS:
        cost = costs(results[f"{E} experts"])
        rows.append([*row([str(E), str(E * TOKENS_OF_EXPERT)], cost, shown), f"{1e3 * cost['router'] / E:.1f}"])
    return table(["E", "tokens", "us/token", *shown, "rest", "router ns / (token E)"], rows)


def documents_table(results: dict[str, list[dict]]) -> str:
    shown = ["attention", "router", "experts", "head", "optimizer"]
    rows = [row([str(n), str(BATCH * ROW // n)], costs(results[f"documents of {n}"]), shown) for n in LENGTHS]
    return table(["tokens of a document", "documents", "us/token", *shown, "rest"], rows)


def body() -> None:
    parser = arguments(__doc__, ("rounds", 3, "times that each setting runs"))
    parser.add_argument("--only", choices=["experts", "documents"], help="one of the two (default both)")
    parser.add_argument("--steps", type=positive, default=3, help="timed steps of a run (default 3)")
    parser.add_argument("--layers", type=positive, default=8,
                        help="of the model; at most 2 of them with experts (default 8)")
    options = parser.parse_args()
    programs: list[Program] = []
    if options.only != "documents":
        programs += [with_experts(E, options) for E in EXPERTS]
    if options.only != "experts":
        programs += [with_documents(length, options) for length in LENGTHS]
    jobs = {program.name: functools.partial(run, program) for program in programs}
    results = in_turn(jobs, options.rounds, options.minutes)
    if options.json:
        print(json.dumps({"microseconds_per_token": {name: costs(of_name) for name, of_name in results.items()},
                          "runs": results}))
        return
    if options.only != "documents":
        print(f"Routed experts, {ROUTED_PER_TOKEN} a token, {TOKENS_OF_EXPERT * ROUTED_PER_TOKEN} rows an expert, "
              f"{min(options.layers, 2)} layers\n")
        print(experts_table(results) + "\n\n" + OF_EXPERTS.format(rows=TOKENS_OF_EXPERT * ROUTED_PER_TOKEN) + "\n")
    if options.only != "experts":
        print(f"Documents, {BATCH * ROW} tokens a step, {options.layers} layers\n")
        print(documents_table(results) + "\n\n" + OF_DOCUMENTS + "\n")
    print(REMARKS)


if __name__ == "__main__":
    main(body)
