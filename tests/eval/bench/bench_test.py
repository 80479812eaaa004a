"""`emo bench`: the reports that scripts read, and what can be checked without a clock."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import Program, check, once, run_cases  # noqa: E402

TINY = "configs/tiny.yaml"


@once
def traced_step(emo: Program) -> tuple[dict, list[dict]]:
    """The report of two ranks and the events of their trace."""
    trace_file = emo.folder / "trace.json"
    bench = emo.json("bench", "step", TINY, "parallel.ep=2", "--steps", 2, "--trace", trace_file, ranks=2)
    return bench, json.loads(trace_file.read_text())["traceEvents"]


def test_a_step_on_two_ranks(emo):
    bench, _ = traced_step(emo)
    for key in ["tokens_per_second", "flops_per_token", "gemm_peak_flops", "peak_fraction",
                "peak_fraction_forward_backward", "peak_memory_bytes", "seconds_per_step"]:
        check(bench[key] > 0, f"bench step --json: {key}")
    check(bench["ranks"] == 2 and bench["threads_per_rank"] == 1, "ranks and threads")
    # A token goes at most once to the other rank: 64 floats there and back, forward and backward, in
    # 2 layers; the lists of who wants what are a few percent more.
    rows = 2 * 4 * (4 * 256) * 64 * 4
    sent = bench["exchange_bytes_per_step"]
    check(rows / 2 < sent < 1.1 * rows, f"{sent} bytes sent, {rows} at most for rows")
    check(1 <= bench["expert_rows_max_over_mean"] < 2 and bench["exchange_wait_seconds_per_step"] > 0,
          "rows and waiting of two ranks")
    check(abs(sum(bench["share"].values()) - 1) < 0.02, f"shares sum to {sum(bench['share'].values())}")


def test_a_step_on_one_rank(emo):
    alone = emo.json("bench", "step", TINY, "--steps", 1, "--warmup", 0)
    check(alone["exchange_bytes_per_step"] == 0 and "exchange_wait_seconds_per_step" not in alone and
          "expert_rows_max_over_mean" not in alone, "one rank sends nothing and waits for nobody")
    check(alone["products"] in ("MKL", "oneDNN"), f"products by {alone['products']}")


def test_a_trace_has_a_process_for_each_rank_and_spans_that_follow_one_another(emo):
    _, events = traced_step(emo)
    check({event["pid"] for event in events} == {0, 1}, "a process for each rank")
    names = {event["name"] for event in events}
    for name in ["layer0/router", "layer0/exchange", "layer1/experts", "layer1/attention", "head", "optimizer"]:
        check(name in names, f"no span {name} among {sorted(names)}")
    for rank in 0, 1:  # the first thread's spans follow one another
        spans = sorted((e["ts"], e["dur"]) for e in events if e["pid"] == rank and e["tid"] == 0)
        for (begin, length), (after, _) in zip(spans, spans[1:]):
            check(begin + length <= after + 0.2, "spans of one thread overlap")


EXCHANGE = ["bench", "exchange", "--tokens", 96, "--width", 8, "--experts", 15, "--top-k", 3, "--document-length", 12,
            "--repeats", 2, "--pools", "3,8,3-15,none"]


def test_data(emo):
    """Token files, in both orders; every chunk of an epoch once."""
    path = emo.folder / "ids.bin"
    path.write_bytes(bytes(2 + i * i % 200 for i in range(100_000)))
    config = [TINY, "data.synthetic=none", f"data.path={path}", "data.eos_id=6", "train.batch=3"]
    for order, chunks, sequences in (("ours", 390, 390), ("reference", 384, 384), ("sequential", 390, 390)):
        found = emo.json("bench", "data", *config, f"data.order={order}", "--rows", 20, "--passes", 2, "--cover")
        check(found["chunks"] == chunks and found["sequences_per_epoch"] == sequences, f"{order}: {found}")
        check(all(found[key] > 0 for key in ("seconds_to_open", "seconds_to_first_step", "cold_tokens_per_second",
                                             "resident_bytes")), f"{found}")
        check(found["tokens_per_second"] >= found["cold_tokens_per_second"], f"{found}")
    check("chunks" in emo.run("bench", "data", *config, "--rows", 2).stdout, "the table")
    emo.run("bench", "data", *config, "data.dtype=uint64", "data.path=none-such", expect=66)


def test_an_exchange_on_four_ranks(emo):
    pools = emo.json(*EXCHANGE, ranks=4)["pools"]
    check(list(pools) == ["3", "8", "3-15", "none"], "a report for each pool")
    for pool, row in pools.items():
        check(0 < row["copies_per_token"] <= row["naive_copies_per_token"] <= 3, f"{pool}: {row}")
        check(row["bytes_per_token"] == row["copies_per_token"] * 2 * 8 * 4, f"{pool}: bytes")
        check(row["rows_max_over_mean"] >= 1, f"{pool}: balance")
        check(len(row["wait_seconds"]) == 4 and max(row["wait_seconds"]) > 0, f"{pool}: each rank's waiting")
    # With three experts a document, all tokens of it go to the same ranks; without pools they spread.
    check(pools["3"]["copies_per_token"] < pools["none"]["naive_copies_per_token"], "pools save copies")


def test_an_exchange_on_one_rank_sends_nothing(emo):
    alone = emo.json(*EXCHANGE)["pools"]["8"]
    check(alone["copies_per_token"] == 0 and alone["naive_copies_per_token"] == 0, "one rank sends nothing")


def test_pools_that_cannot_be_are_refused(emo):
    for wrong in ["2", "8-4", "x", "3-4-5"]:
        result = emo.run("bench", "exchange", "--top-k", 3, "--pools", wrong, expect=64)
        check(wrong in result.stderr, result.stderr)
    emo.run("bench", "exchange", "--experts", 3, "--top-k", 3, "--pools", "none", ranks=4, expect=64)


if __name__ == "__main__":
    run_cases(globals())
