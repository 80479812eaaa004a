"""Evaluation and expert subsets from outside, on a small model trained here on two sources."""
import json
import math
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.program import Program, check, write_tokenizer  # noqa: E402


def close(a, b, tolerance) -> bool:
    return abs(a - b) <= tolerance * abs(b)


def main() -> None:
    with Program(sys.argv[1]) as emo:
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
        data = ["--data", folder / "test"]

        whole = emo.json("eval", model, *data)
        check(close(whole["perplexity"], math.exp(whole["loss"]), 1e-9), "perplexity")
        texts = [json.loads(line)["text"] for line in open(folder / "test.jsonl")]
        check(whole["bytes"] == sum(map(len, texts)), "bytes")
        nats = whole["loss"] * whole["predicted_tokens"]
        check(close(whole["bits_per_byte"], nats / math.log(2) / whole["bytes"], 1e-9), "bits per byte")
        parts = whole["sources"].values()
        check(close(sum(p["loss"] * p["predicted_tokens"] for p in parts), nats, 1e-9), "sources do not add up")
        # Every token but each document's first is predicted once, its end included.
        dataset = json.loads((folder / "test/dataset.json").read_text())
        check(whole["predicted_tokens"] == dataset["tokens"] - dataset["documents"], "predicted tokens")
        for ranks, layout in ((2, ["--ep", 2]), (2, ["--dp", 2])):
            there = emo.json("eval", model, *data, *layout, ranks=ranks)
            check(close(there["loss"], whole["loss"], 1e-6), f"{layout}: {there['loss']}, {whole['loss']}")
        check(emo.json("eval", model, *data, "--pool", 4)["loss"] != whole["loss"], "--pool changes nothing")
        check(close(emo.json("eval", model, *data, "--pool", 31)["loss"], whole["loss"], 1e-9), "a pool of all")

        def rank(label, keep, **options):
            output = folder / f"{label}-{keep}.json"
            emo.run("experts", "rank", model, "--data", folder / "train", "--label", label, "--keep", keep,
                    "--method", "router", "--output", output, **options)
            return output

        subset = rank("colours", 8)
        cut = emo.json("eval", model, *data, "--experts", subset)
        check(cut["loss"] != whole["loss"], "a subset changes nothing")
        check(emo.json("eval", model, *data, "--experts", subset, "--ep", 2, ranks=2)["loss"] - cut["loss"] < 1e-6, "ep")
        every = emo.json("eval", model, *data, "--experts", rank("numbers", 32))
        check(every["loss"] == whole["loss"], "keeping all experts must change nothing, not a bit")
        emo.run("experts", "rank", model, "--data", folder / "train", "--label", "colours", "--keep", 8,
                "--output", subset, expect=73)

        retention = ["experts", "retention", f"a={model}", "--calibration", folder / "train", *data]
        report = emo.json(*retention)["a"]
        check(set(report) == {"full", "no_routed_experts", "cuts", "domains"}, str(report.keys()))

        def increase(numbers, method, keep, documents="all", calibrated_on="own", weights="kept"):
            wanted = {"method": method, "keep": keep, "documents": documents, "calibrated_on": calibrated_on,
                      "weights": weights}
            [found] = [c for c in numbers["cuts"] if {key: c[key] for key in wanted} == wanted]
            check(close(found["increase"], found["loss"] - numbers["full"], 1e-9), "increase")
            return found["increase"]

        check(len(report["cuts"]) == 8, "router and random, two fractions, two weightings")
        colours = report["domains"]["colours"]
        check(close(colours["full"], whole["sources"]["colours"]["loss"], 1e-6), "full loss")
        check(close(colours["full"] + increase(colours, "router", 0.25), cut["sources"]["colours"]["loss"], 1e-6), "cut loss")
        check(close(report["full"], sum(d["full"] for d in report["domains"].values()) / 2, 1e-9), "mean over domains")
        mean = sum(increase(d, "random", 0.125, weights="full") for d in report["domains"].values()) / 2
        check(close(increase(report, "random", 0.125, weights="full"), mean, 1e-9), "mean of a cut over domains")

        # Every way of choosing, against the commands that do one each.
        options = ["--method", "layerwise,easy_ep", "--documents", "1,3", "--other-domain", "--keep", 0.25]
        every_way = emo.json(*retention, *options)["a"]
        colours = every_way["domains"]["colours"]
        check(len(every_way["cuts"]) == 4 + 2 + 2, "the cuts that were asked for")
        for label, method, documents, weights, found in [
                ("colours", "layerwise", "all", "kept", increase(colours, "layerwise", 0.25)),
                ("colours", "layerwise", "all", "full", increase(colours, "layerwise", 0.25, weights="full")),
                ("colours", "easy_ep", "all", "kept", increase(colours, "easy_ep", 0.25)),
                ("colours", "layerwise", 1, "kept", increase(colours, "layerwise", 0.25, documents=1)),
                ("colours", "layerwise", 3, "kept", increase(colours, "layerwise", 0.25, documents=3)),
                ("numbers", "layerwise", "all", "kept", increase(colours, "layerwise", 0.25, calibrated_on="other"))]:
            output = folder / "one.json"
            emo.run("experts", "rank", model, "--data", folder / "train", "--label", label, "--keep", 0.25,
                    "--method", method, "--documents", documents, "--output", output, "--overwrite")
            flags = ["--full-weights"] if weights == "full" else []
            one = emo.json("eval", model, *data, "--experts", output, *flags)["sources"]["colours"]["loss"]
            check(close(colours["full"] + found, one, 1e-6), f"{label} {method} {documents} {weights}: {found}, {one}")
        two_ranks = emo.json(*retention, *options, "--ep", 2, ranks=2)["a"]
        for a, b in zip(every_way["cuts"], two_ranks["cuts"]):
            check(close(a["loss"], b["loss"], 1e-6), f"two ranks: {a}, {b}")
        colours = report["domains"]["colours"]
        off = emo.json("eval", model, *data, "--no-routed-experts")
        check(close(colours["no_routed_experts"], off["sources"]["colours"]["loss"], 1e-6), "floor")

        # Experts that documents use together on one rank: another place, the same results.
        placement = folder / "placement.json"
        placed = emo.json("experts", "place", model, "--data", folder / "train", "--ranks", 2, "--output", placement)
        check(json.loads(placement.read_text()) == placed, "the file is what was printed")
        check(placed["copies_per_token_after"] <= placed["copies_per_token_before"], "placing costs copies")
        for order in placed["order"]:
            check(sorted(order) == list(range(31)), f"no permutation: {order}")
        moved = folder / "moved"
        emo.run("train", "configs/tiny.yaml", f"run.folder={moved}", f"run.start_from={model}", "run.take=all",
                f"data.path={folder}/train", "data.synthetic=none", "model.vocab_size=400", "data.sequence_length=64",
                "train.steps=42", "parallel.ep=2", f"parallel.placement={placement}", "--quiet", ranks=2)
        still = folder / "still"
        emo.run("train", "configs/tiny.yaml", f"run.folder={still}", f"run.start_from={model}", "run.take=all",
                f"data.path={folder}/train", "data.synthetic=none", "model.vocab_size=400", "data.sequence_length=64",
                "train.steps=42", "parallel.ep=2", "--quiet", ranks=2)
        carried = moved / "step-0000042/placement.json"
        check(json.loads(carried.read_text())["order"] == placed["order"], "the checkpoint does not carry the order")
        check(not (still / "step-0000042/placement.json").exists(), "an order from nowhere")
        sent = [[json.loads(line)["block 00/exchange/MB sent"] for line in open(run / "metrics.jsonl")] for run in (moved, still)]
        check(sum(sent[0]) < sum(sent[1]), f"no fewer bytes travel: {sent}")
        losses = [emo.json("eval", run / "step-0000042", *data, "--ep", 2, ranks=2)["loss"] for run in (moved, still)]
        check(close(losses[0], losses[1], 1e-5), f"the place of experts changed results: {losses}")

        # What cannot be is explained.
        for arguments, code, hint in [
                (["experts", "rank", model, "--data", folder / "train", "--label", "colour", "--keep", 8,
                  "--output", folder / "x.json"], 64, "did you mean 'colours'"),
                (["experts", "rank", model, "--data", folder / "train", "--label", "colours", "--keep", 33,
                  "--output", folder / "x.json"], 64, "keep 33"),
                (["eval", model, *data, "--pool", 2], 64, "at least 4"),
                ([*retention, "--documents", 100000], 64, "with the label numbers"),
                ([*retention, "--keep", 0.01], 64, "keep 0"),
                (["eval", model, *data, "--experts", folder / "nowhere.json"], 66, "nowhere.json"),
                (["eval", run, *data], 66, "config.json"),
                (["experts", "place", model, "--data", folder / "train", "--ranks", 32, "--output", folder / "x.json"],
                 64, "from 2 to 31"),
                (["experts", "place", model, "--data", folder / "train", "--ranks", 2, "--output", placement], 73, "--overwrite"),
                (["train", "configs/tiny.yaml", f"run.folder={folder}/y", f"parallel.placement={subset}"], 65, "order")]:
            result = emo.run(*arguments, expect=code)
            check(hint in result.stderr, f"no {hint!r} in {result.stderr}")
        write_tokenizer(folder / "other.json", merges=50)
        emo.run("prepare", "--tokenizer", folder / "other.json", "--output", folder / "other", folder / "test.jsonl")
        result = emo.run("eval", model, "--data", folder / "other", expect=65)
        check("another tokenizer" in result.stderr, result.stderr)
    print("evaluation and subsets are as described")


if __name__ == "__main__":
    main()
