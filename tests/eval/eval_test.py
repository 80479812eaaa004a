"""Evaluation and expert subsets from outside, on a small model trained here on two sources."""
import json
import math
import pathlib
import random
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.program import ROOT, Program, check, on_device, once, run_cases, write_tokenizer  # noqa: E402


def close(a, b, tolerance) -> bool:
    return abs(a - b) <= tolerance * abs(b)


@once
def trained(emo: Program) -> pathlib.Path:
    """A model of forty steps on `train`; `test` is other text of the same two sources."""
    folder = emo.folder
    write_tokenizer(folder / "tokenizer.json", merges=100)
    draw = random.Random(1)
    for split, count in (("train", 400), ("test", 60)):
        with open(folder / f"{split}.jsonl", "w") as file:
            for i in range(count):
                words = ["red green blue", "one two three"][i % 2].split()
                text = " ".join(draw.choice(words) for _ in range(draw.randint(1, 120)))
                file.write(json.dumps({"text": text, "source": ["colours", "numbers"][i % 2]}) + "\n")
        emo.run("prepare", "--tokenizer", folder / "tokenizer.json", "--output", folder / split,
                folder / f"{split}.jsonl")
    run = folder / "run"
    emo.run("train", "configs/tiny.yaml", f"run.folder={run}", f"data.path={folder}/train", "data.synthetic=none",
            "model.vocab_size=400", "data.sequence_length=64", "train.steps=40", "--quiet")
    model = run / "step-0000040"
    check(model.exists(), "training on prepared text")
    return model


def evaluate(emo: Program, *options, ranks: int = 0) -> dict:
    return emo.json("eval", trained(emo), "--data", emo.folder / "test", *options, ranks=ranks)


@once
def whole(emo: Program) -> dict:
    return evaluate(emo)


@once
def subset(emo: Program) -> pathlib.Path:
    return rank(emo, "colours", 8)


def rank(emo: Program, label: str, keep: int) -> pathlib.Path:
    model, output = trained(emo), emo.folder / f"{label}-{keep}.json"
    emo.run("experts", "rank", model, "--data", emo.folder / "train", "--label", label, "--keep", keep,
            "--method", "router", "--output", output)
    return output


@once
def cut(emo: Program) -> dict:
    return evaluate(emo, "--experts", subset(emo))


def test_losses_are_of_all_tokens_but_the_first_of_each_document(emo):
    report = whole(emo)
    check(close(report["perplexity"], math.exp(report["loss"]), 1e-9), "perplexity")
    texts = [json.loads(line)["text"] for line in open(emo.folder / "test.jsonl")]
    check(report["bytes"] == sum(map(len, texts)), "bytes")
    nats = report["loss"] * report["predicted_tokens"]
    check(close(report["bits_per_byte"], nats / math.log(2) / report["bytes"], 1e-9), "bits per byte")
    parts = report["sources"].values()
    check(close(sum(p["loss"] * p["predicted_tokens"] for p in parts), nats, 1e-9), "sources do not add up")
    # Every token but each document's first is predicted once, its end included.
    dataset = json.loads((emo.folder / "test/dataset.json").read_text())
    check(report["predicted_tokens"] == dataset["tokens"] - dataset["documents"], "predicted tokens")


def test_two_ranks_give_the_same_loss(emo):
    for layout in (["--ep", 2], ["--dp", 2]):
        there = evaluate(emo, *layout, ranks=2)
        check(close(there["loss"], whole(emo)["loss"], 1e-6), f"{layout}: {there['loss']}, {whole(emo)['loss']}")


def test_a_run_s_folder_stands_for_its_newest_checkpoint(emo):
    run = trained(emo).parent
    for ranks in (0, 2):
        report = emo.json("eval", run, "--data", emo.folder / "test", ranks=ranks)
        check(report["checkpoint"] == str(trained(emo)), report["checkpoint"])
        check(close(report["loss"], whole(emo)["loss"], 1e-6), f"{report['loss']}, {whole(emo)['loss']}")
    out = [emo.folder / "hf-of-run", emo.folder / "hf-of-step"]
    for model, folder in zip((run, trained(emo)), out):
        emo.run("export", model, folder)
    check((out[0] / "model.safetensors").read_bytes() == (out[1] / "model.safetensors").read_bytes(), "export")
    shown = emo.json("experts", "compare", run, subset(emo), subset(emo))
    check(shown["pairs"][0]["layers"] == [1.0, 1.0], f"{shown}")


def test_pools(emo):
    check(evaluate(emo, "--pool", 4)["loss"] != whole(emo)["loss"], "--pool changes nothing")
    check(close(evaluate(emo, "--pool", 31)["loss"], whole(emo)["loss"], 1e-9), "a pool of all")


def test_subsets(emo):
    check(cut(emo)["loss"] != whole(emo)["loss"], "a subset changes nothing")
    two_ranks = evaluate(emo, "--experts", subset(emo), "--ep", 2, ranks=2)["loss"]
    check(abs(two_ranks - cut(emo)["loss"]) < 1e-6, "ep")
    every = evaluate(emo, "--experts", rank(emo, "numbers", 32))
    check(every["loss"] == whole(emo)["loss"], "keeping all experts must change nothing, not a bit")
    emo.run("experts", "rank", trained(emo), "--data", emo.folder / "train", "--label", "colours", "--keep", 8,
            "--output", subset(emo), expect=73)


def retention_of(emo: Program) -> list:
    return ["experts", "retention", f"a={trained(emo)}", "--calibration", emo.folder / "train", "--data",
            emo.folder / "test"]


@once
def retention(emo: Program) -> dict:
    return emo.json(*retention_of(emo))["a"]


def increase(numbers, method, keep, documents="all", calibrated_on="own", weights="kept"):
    wanted = {"method": method, "keep": keep, "documents": documents, "calibrated_on": calibrated_on,
              "weights": weights}
    [found] = [c for c in numbers["cuts"] if {key: c[key] for key in wanted} == wanted]
    check(close(found["increase"], found["loss"] - numbers["full"], 1e-9), "increase")
    return found["increase"]


def test_retention_reports_what_eval_says(emo):
    report = retention(emo)
    check(set(report) == {"full", "standard_error", "no_routed_experts", "cuts", "documents", "tokens", "domains"}, str(report.keys()))
    check(len(report["cuts"]) == 8, "router and random, two fractions, two weightings")
    colours = report["domains"]["colours"]
    check(close(colours["full"], whole(emo)["sources"]["colours"]["loss"], 1e-6), "full loss")
    check(close(colours["full"] + increase(colours, "router", 0.25), cut(emo)["sources"]["colours"]["loss"], 1e-6), "cut loss")
    check(close(report["full"], sum(d["full"] for d in report["domains"].values()) / 2, 1e-9), "mean over domains")
    mean = sum(increase(d, "random", 0.125, weights="full") for d in report["domains"].values()) / 2
    check(close(increase(report, "random", 0.125, weights="full"), mean, 1e-9), "mean of a cut over domains")
    off = evaluate(emo, "--no-routed-experts")
    check(close(colours["no_routed_experts"], off["sources"]["colours"]["loss"], 1e-6), "floor")


EVERY_WAY = ["--method", "layerwise,easy_ep", "--documents", "1,3", "--other-domain", "--keep", 0.25]


@once
def every_way(emo: Program) -> dict:
    return emo.json(*retention_of(emo), *EVERY_WAY)["a"]


def test_every_way_of_choosing_is_the_commands_that_do_one_each(emo):
    colours = every_way(emo)["domains"]["colours"]
    check(len(every_way(emo)["cuts"]) == 4 + 2 + 2, "the cuts that were asked for")
    for label, method, documents, weights, found in [
            ("colours", "layerwise", "all", "kept", increase(colours, "layerwise", 0.25)),
            ("colours", "layerwise", "all", "full", increase(colours, "layerwise", 0.25, weights="full")),
            ("colours", "easy_ep", "all", "kept", increase(colours, "easy_ep", 0.25)),
            ("colours", "layerwise", 1, "kept", increase(colours, "layerwise", 0.25, documents=1)),
            ("colours", "layerwise", 3, "kept", increase(colours, "layerwise", 0.25, documents=3)),
            ("numbers", "layerwise", "all", "kept", increase(colours, "layerwise", 0.25, calibrated_on="other"))]:
        output = emo.folder / "one.json"
        emo.run("experts", "rank", trained(emo), "--data", emo.folder / "train", "--label", label, "--keep", 0.25,
                "--method", method, "--documents", documents, "--output", output, "--overwrite")
        flags = ["--full-weights"] if weights == "full" else []
        one = evaluate(emo, "--experts", output, *flags)["sources"]["colours"]["loss"]
        check(close(colours["full"] + found, one, 1e-6), f"{label} {method} {documents} {weights}: {found}, {one}")


def test_retention_on_two_ranks(emo):
    two_ranks = emo.json(*retention_of(emo), *EVERY_WAY, "--ep", 2, ranks=2)["a"]
    for a, b in zip(every_way(emo)["cuts"], two_ranks["cuts"], strict=True):
        check(close(a["loss"], b["loss"], 1e-6), f"two ranks: {a}, {b}")


@once
def placement(emo: Program) -> tuple[pathlib.Path, dict]:
    path = emo.folder / "placement.json"
    return path, emo.json("experts", "place", trained(emo), "--data", emo.folder / "train", "--ranks", 2, "--output", path)


def test_placing_experts_saves_copies(emo):
    """Experts that documents use together on one rank."""
    path, placed = placement(emo)
    check(json.loads(path.read_text()) == placed, "the file is what was printed")
    check(placed["copies_per_token_after"] <= placed["copies_per_token_before"], "placing costs copies")
    for order in placed["order"]:
        check(sorted(order) == list(range(31)), f"no permutation: {order}")


def test_a_placement_moves_experts_and_no_results(emo):
    """Another place, the same results."""
    path, placed = placement(emo)
    folder = emo.folder
    runs = {"moved": [f"parallel.placement={path}"], "still": []}
    for name, overrides in runs.items():
        emo.run("train", "configs/tiny.yaml", f"run.folder={folder / name}", f"run.start_from={trained(emo)}", "run.take=all",
                f"data.path={folder}/train", "data.synthetic=none", "model.vocab_size=400", "data.sequence_length=64",
                "train.steps=42", "parallel.ep=2", *overrides, "--quiet", ranks=2)
    moved, still = (folder / name for name in runs)
    carried = moved / "step-0000042/placement.json"
    check(json.loads(carried.read_text())["order"] == placed["order"], "the checkpoint does not carry the order")
    check(not (still / "step-0000042/placement.json").exists(), "an order from nowhere")
    sent = [[json.loads(line)["block 00/exchange/MB sent"] for line in open(run / "metrics.jsonl")] for run in (moved, still)]
    check(sum(sent[0]) < sum(sent[1]), f"no fewer bytes travel: {sent}")
    losses = [emo.json("eval", run / "step-0000042", "--data", folder / "test", "--ep", 2, ranks=2)["loss"]
              for run in (moved, still)]
    check(close(losses[0], losses[1], 1e-5), f"the place of experts changed results: {losses}")


def test_losses_of_documents_are_those_that_means_are_of(emo):
    for label, domain in retention(emo)["domains"].items():
        documents = domain["by_document"]
        tokens = documents["tokens"]
        check(domain["documents"] == len(documents["ids"]) > 1 and domain["tokens"] == sum(tokens), f"{label}: counts")

        def mean(losses: list[float]) -> float:
            return sum(n * loss for n, loss in zip(tokens, losses)) / sum(tokens)

        check(close(mean(documents["full"]), domain["full"], 1e-12), f"{label}: full")
        for cut, losses in zip(domain["cuts"], documents["cuts"]):
            rises = [a - b for a, b in zip(losses, documents["full"])]
            check(close(mean(losses), cut["loss"], 1e-12) and close(mean(rises), cut["increase"], 1e-12), f"{label}: cut")
            off = sum((n * (rise - cut["increase"])) ** 2 for n, rise in zip(tokens, rises))
            error = (off * len(tokens) / (len(tokens) - 1)) ** 0.5 / sum(tokens)
            check(close(error, cut["standard_error"], 1e-12), f"{label}: standard error")
    evaluated = evaluate(emo, "--by-document")["sources"]
    for label, source in evaluated.items():
        ours = retention(emo)["domains"][label]["by_document"]
        theirs = source["by_document"]
        check((theirs["ids"], theirs["tokens"]) == (ours["ids"], ours["tokens"]), f"{label}: documents of emo eval")
        check(all(close(a, b, 1e-5) for a, b in zip(theirs["loss"], ours["full"])), f"{label}: losses of emo eval")


def test_retention_goes_on_where_it_was_killed(emo):
    output = emo.folder / "kept.json"
    part = pathlib.Path(f"{output}.part")
    arguments = [*retention_of(emo), f"b={trained(emo)}", "--output", output]
    emo.run(*arguments)
    check(not part.exists(), "what was kept is still there")
    whole, table = json.loads(output.read_text()), emo.run(*arguments, "--overwrite").stdout
    command = [emo.executable, *on_device([*map(str, arguments), "--overwrite"])]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not part.exists():  # written when the first domain is done
        check(process.poll() is None, "it ended before anything was kept")
        time.sleep(0.002)
    process.kill()
    process.wait()
    kept = json.loads(part.read_text())
    some = next(iter(kept["models"]["a"]["domains"].values()))
    some["losses"][0][0] += 1  # a damaged file is told from a whole one
    part.write_text(json.dumps(kept))
    check("is damaged" in emo.run(*arguments, "--overwrite", expect=65).stderr, "damage")
    some["losses"][0][0] -= 1
    part.write_text(json.dumps(kept))
    said = emo.run(*arguments, "--overwrite")
    check(said.stdout == table and json.loads(output.read_text()) == whole, "goes on to other numbers")
    check("b (2/2)" in said.stderr and not part.exists(), said.stderr)
    part.write_text(json.dumps(kept))
    said = emo.run(*arguments, "--overwrite", "--keep", "0.5")
    check("a was measured with another model, other data or options" in said.stderr, said.stderr)
    check("0.125" not in said.stdout, "measured of other options")


def test_what_cannot_be_is_explained(emo):
    folder, model, data = emo.folder, trained(emo), ["--data", emo.folder / "test"]
    for arguments, code, hint in [
            (["experts", "rank", model, "--data", folder / "train", "--label", "colour", "--keep", 8,
              "--output", folder / "x.json"], 64, "did you mean 'colours'"),
            (["experts", "rank", model, "--data", folder / "train", "--label", "colours", "--keep", 33,
              "--output", folder / "x.json"], 64, "keep 33"),
            (["eval", model, *data, "--pool", 2], 64, "at least 4"),
            ([*retention_of(emo), "--documents", 100000], 64, "with the label numbers"),
            ([*retention_of(emo), "--keep", 0.01], 64, "keep 0"),
            (["eval", model, *data, "--experts", folder / "nowhere.json"], 66, "nowhere.json"),
            (["eval", folder / "test", *data], 66, "config.json"),
            (["experts", "place", model, "--data", folder / "train", "--ranks", 32, "--output", folder / "x.json"],
             64, "from 2 to 31"),
            (["experts", "place", model, "--data", folder / "train", "--ranks", 2, "--output", placement(emo)[0]], 73,
             "--overwrite"),
            (["train", "configs/tiny.yaml", f"run.folder={folder}/y", f"parallel.placement={subset(emo)}"], 65, "order")]:
        result = emo.run(*arguments, expect=code)
        check(hint in result.stderr, f"no {hint!r} in {result.stderr}")


def test_data_of_another_tokenizer_is_refused(emo):
    model, folder = trained(emo), emo.folder
    write_tokenizer(folder / "other.json", merges=50)
    emo.run("prepare", "--tokenizer", folder / "other.json", "--output", folder / "other", folder / "test.jsonl")
    result = emo.run("eval", model, "--data", folder / "other", expect=65)
    check("another tokenizer" in result.stderr, result.stderr)


if __name__ == "__main__":
    run_cases(globals())
