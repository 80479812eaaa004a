"""Experts measured, ranked, cut out, compared and put back, on a small model trained here on two sources.

Every method is held against numpy_model.py, which is written from the formulas.
"""
import json
import pathlib
import random
import shutil
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.eval.experts.numpy_model import NumpyModel, prepared_pieces  # noqa: E402
from tests.program import Program, check, once, run_cases, write_tokenizer  # noqa: E402

S, E, LAYERS = 64, 31, 2
LABELS = ["colours", "numbers"]
METHODS = ("layerwise", "router", "easy_ep", "random")
SIZES = [1, 5, "all"]  # calibration documents


def near(a, b, tolerance: float, what: str) -> None:
    a, b = np.asarray(a, float), np.asarray(b, float)
    check(a.shape == b.shape, f"{what}: {a.shape}, expected {b.shape}")
    worst = np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)
    check(worst < tolerance, f"{what}: off by {worst:.1e} of the largest")


@once
def train(emo: Program) -> pathlib.Path:
    folder = emo.folder
    write_tokenizer(folder / "tokenizer.json", merges=100)
    draw = random.Random(1)
    with open(folder / "text.jsonl", "w") as file:
        for i in range(200):
            words = ["red green blue", "one two three"][i % 2].split()
            text = " ".join(draw.choice(words) for _ in range(draw.randint(1, 90)))
            file.write(json.dumps({"id": f"d{i}", "text": text, "source": LABELS[i % 2]}) + "\n")
    emo.run("prepare", "--tokenizer", folder / "tokenizer.json", "--output", folder / "data", folder / "text.jsonl")
    emo.run("train", "configs/tiny.yaml", f"run.folder={folder}/run", f"data.path={folder}/data",
            "data.synthetic=none", "model.vocab_size=400", f"data.sequence_length={S}", "train.steps=30", "--quiet")
    return folder / "run/step-0000030"


def keep_largest(scores, routed: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda e: -scores[e])[:routed])


def layerwise(model: NumpyModel, pieces: list[np.ndarray], routed: int) -> tuple[list, list]:
    """One run from the start for each layer."""
    kept: list[list[int]] = []
    scores = []
    for layer in range(LAYERS):
        views = []
        for tokens in pieces:
            passes = model.run(tokens, kept)
            views.append([next(passes) for _ in range(layer + 1)][layer])
        scores.append(np.concatenate([v.probability for v in views]).mean(0))
        kept.append(keep_largest(scores[-1], routed))
    return scores, kept


def sums(model: NumpyModel, pieces: list[np.ndarray], pool: int) -> dict[str, np.ndarray]:
    result = {key: np.zeros((LAYERS, E)) for key in ("probability", "selections", "weight", "easy_ep", "pools")}
    for tokens in pieces:
        for layer, view in enumerate(model.run(tokens)):
            q = view.probability.sum(0)
            result["probability"][layer] += q
            result["pools"][layer, keep_largest(q, pool)] += 1
            np.add.at(result["selections"][layer], view.chosen, 1)
            np.add.at(result["weight"][layer], view.chosen, view.weights)
            np.add.at(result["easy_ep"][layer], view.chosen, view.lengths * view.turned[:, None])
    return result


@once
def oracle(emo: Program) -> tuple[NumpyModel, dict]:
    """The trained model in numpy, and the pieces of each document."""
    return NumpyModel(train(emo)), prepared_pieces(emo.folder / "data", S)


def test_usage_is_what_the_formulas_say(emo):
    model, (numpy_model, documents) = train(emo), oracle(emo)
    output = emo.folder / "usage.json"
    arguments = ["--data", emo.folder / "data", "--pool", 9, "--overwrite", "--output", output]
    printed = emo.json("experts", "usage", model, *arguments)
    check(json.loads(output.read_text()) == printed, "the file is what is printed")
    tensors = load_file(output.with_suffix(".safetensors"))
    for i, label in enumerate(LABELS):
        pieces = [p for name, ps in documents.items() if int(name[1:]) % 2 == i for p in ps]
        numbers, expected = printed["labels"][label], sums(numpy_model, pieces, pool=9)
        tokens = sum(map(len, pieces))
        check(numbers["tokens"] == tokens and numbers["documents"] == 100, f"{label}: totals")
        near(numbers["mean_probability"], expected["probability"] / tokens, 1e-5, "mean probability")
        # Where two experts are within rounding of each other, fp32 and fp64 may choose differently: a few
        # tokens of thousands.
        near(numbers["selection_share"], expected["selections"] / tokens, 2e-3, "selection share")
        weights = np.asarray(numbers["mean_weight"]) * np.asarray(numbers["selection_share"]) * tokens
        near(weights, expected["weight"], 2e-3, "mean weight")
        near(numbers["easy_ep"], expected["easy_ep"], 2e-3, "EASY-EP")
        near(numbers["pool_share"], expected["pools"] / len(pieces), 1e-9, "pools")
        for key in ("mean_probability", "easy_ep"):
            near(tensors[f"{label}/{key}"], numbers[key], 1e-15, "the tensors are the numbers")
    for layout in (["--ep", 2], ["--dp", 2]):
        there = emo.json("experts", "usage", model, *arguments, *layout, ranks=2)
        for label in LABELS:
            for key, value in printed["labels"][label].items():
                near(there["labels"][label][key], value, 2e-2 if key == "mean_weight" else 2e-3, f"{layout}: {key}")


@once
def ranked(emo: Program) -> dict[str, pathlib.Path]:
    """A folder of subsets for each method."""
    for method in METHODS:
        emo.run("experts", "rank", train(emo), "--data", emo.folder / "data", "--label", "colours", "--method", method,
                "--keep", "8,0.5", "--documents", ",".join(map(str, SIZES)), "--output-folder", emo.folder / method)
    return {method: emo.folder / method for method in METHODS}


def subset_of(emo: Program, method: str) -> pathlib.Path:
    """By all documents."""
    return ranked(emo)[method] / f"colours-{method}-keep8-documentsall.json"


def test_ranks_are_what_the_formulas_say(emo):
    numpy_model, documents = oracle(emo)
    for method, folder in ranked(emo).items():
        check(len(list(folder.iterdir())) == 6, f"{method}: a file for each size and number of experts")
        before: list[str] = []
        for size in SIZES:
            subset = json.loads((folder / f"colours-{method}-keep8-documents{size}.json").read_text())
            names = subset["calibration_documents"]
            check(len(set(names)) == (100 if size == "all" else size), f"{size} documents: {names}")
            check(names[:len(before)] == before, "a smaller choice of documents is among the larger")
            before = names
            pieces = [p for name in names for p in documents[name]]
            check(subset["calibration_tokens"] == sum(map(len, pieces)), "tokens")
            if method == "random":
                check(subset["scores"] == json.loads((folder / f"colours-{method}-keep16-documents1.json").read_text())["scores"],
                      "random scores come from the seed alone")
            elif method == "layerwise":
                scores, kept = layerwise(numpy_model, pieces, 7)
                near(subset["scores"], scores, 1e-5, f"{method} on {size}")
                check(subset["experts_kept_per_layer"] == [k + [E] for k in kept], f"layerwise keeps {kept}")
            else:
                expected = sums(numpy_model, pieces, 1)
                near(subset["scores"], expected["easy_ep"] if method == "easy_ep" else expected["probability"] / sum(map(len, pieces)),
                     2e-3, f"{method} on {size}")
            for kept, scores in zip(subset["experts_kept_per_layer"], subset["scores"]):
                check(kept == keep_largest(scores, 7) + [E], f"{method}: {kept} are not the largest and the shared one")


def test_two_ranks_keep_the_same(emo):
    for layout in (["--ep", 2], ["--dp", 2]):
        again = emo.folder / "again.json"
        emo.run("experts", "rank", train(emo), "--data", emo.folder / "data", "--label", "colours", "--keep", 8,
                "--output", again, "--overwrite", *layout, ranks=2)
        one, two = (json.loads(p.read_text()) for p in (subset_of(emo, "layerwise"), again))
        check(one["experts_kept_per_layer"] == two["experts_kept_per_layer"], f"{layout} keeps others")
        near(two["scores"], one["scores"], 1e-5, f"{layout}: scores")


def test_compare_tells_the_overlap(emo):
    paths = [subset_of(emo, method) for method in ("router", "random")]
    overlap = emo.json("experts", "compare", train(emo), *paths)["pairs"][0]
    a, b = (json.loads(path.read_text())["experts_kept_per_layer"] for path in paths)
    expected = [len(set(x[:-1]) & set(y[:-1])) / len(set(x[:-1]) | set(y[:-1])) for x, y in zip(a, b)]
    near(overlap["layers"], expected, 1e-12, "Jaccard overlap")


def tensors_of(folder: pathlib.Path) -> dict[str, np.ndarray]:
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors.update(load_file(file))
    return tensors


@once
def child(emo: Program) -> pathlib.Path:
    """The model that has the subset's experts alone."""
    emo.run("experts", "extract", train(emo), subset_of(emo, "layerwise"), emo.folder / "cut")
    return emo.folder / "cut"


def test_a_cut_model_has_copies_of_what_it_keeps(emo):
    model, subset, out = train(emo), subset_of(emo, "layerwise"), child(emo)
    kept = json.loads(subset.read_text())["experts_kept_per_layer"]
    parent, cut = tensors_of(model), tensors_of(out)
    dense = [name for name in parent if ".mlp." not in name]
    check(len(cut) == len(dense) + LAYERS * (1 + 8 * 3), "tensors of the cut model")
    for name in dense:
        check(np.array_equal(cut[name], parent[name]), name)
    for layer in range(LAYERS):
        mlp = f"model.layers.{layer}.mlp"
        check(np.array_equal(cut[f"{mlp}.gate.weight"], parent[f"{mlp}.gate.weight"][kept[layer]]), "router rows")
        for new, old in enumerate(kept[layer]):
            for kind in ("gate", "up", "down"):
                name = f"{kind}_proj.weight"
                check(np.array_equal(cut[f"{mlp}.experts.{new}.{name}"], parent[f"{mlp}.experts.{old}.{name}"]), name)
    config = json.loads((out / "config.json").read_text())
    check(config["num_experts"] == 8 and "num_experts_per_layer" not in config, "counts")
    top_k = json.loads((model / "config.json").read_text())["num_experts_per_tok"]
    check(config["num_experts_per_tok"] == min(top_k, 8), "top_k")
    metadata = json.loads((out / "pruning_metadata.json").read_text())
    check(metadata["prune_keep_k"] == 8 and metadata["experts_kept_per_layer"] == kept, "metadata")
    check(metadata["task"] == "colours" and metadata["num_calibration"] == 100, "metadata")


def test_a_subset_and_what_extract_writes_are_one_model(emo):
    model, out, data = train(emo), child(emo), ["--data", emo.folder / "data"]
    view, extracted = emo.json("eval", model, *data, "--experts", subset_of(emo, "layerwise")), emo.json("eval", out, *data)
    check(view["loss"] == extracted["loss"], "a checkpoint with --experts and what extract writes are one model")
    for layout in (["--ep", 2], ["--dp", 2]):
        near(emo.json("eval", out, *data, *layout, ranks=2)["loss"], view["loss"], 1e-6, f"{layout}")
    check(view["loss"] != whole_loss(emo), "a subset changes nothing")


@once
def whole_loss(emo: Program) -> float:
    return emo.json("eval", train(emo), "--data", emo.folder / "data")["loss"]


@once
def budgets(emo: Program) -> dict[str, pathlib.Path]:
    """Models cut to numbers of experts for each layer: all; and fewer than a token chooses."""
    for budget in ("32,32", "3,12"):
        emo.run("experts", "rank", train(emo), "--data", emo.folder / "data", "--keep-per-layer", budget, "--output",
                emo.folder / f"{budget}.json")
        emo.run("experts", "extract", train(emo), emo.folder / f"{budget}.json", emo.folder / budget, "--max-shard", 1)
    return {budget: emo.folder / budget for budget in ("32,32", "3,12")}


def test_keeping_all_experts_changes_no_bit(emo):
    folder, parent = budgets(emo)["32,32"], tensors_of(train(emo))
    for name, tensor in tensors_of(folder).items():
        check(np.array_equal(tensor, parent[name]), f"keeping all experts changed {name}")
    loss = emo.json("eval", folder, "--data", emo.folder / "data")["loss"]
    check(loss == whole_loss(emo), "keeping all experts changed the loss")


def test_budgets_may_differ_by_layer(emo):
    model, folder, data = train(emo), budgets(emo)["3,12"], ["--data", emo.folder / "data"]
    config = json.loads((folder / "config.json").read_text())
    check(config["num_experts_per_layer"] == [3, 12] and config["num_experts"] == 12, "budgets")
    few = emo.json("eval", folder, *data)["loss"]
    check(few == emo.json("eval", model, *data, "--experts", emo.folder / "3,12.json")["loss"], "budgets: one model")
    near(emo.json("eval", folder, *data, "--ep", 2, ranks=2)["loss"], few, 1e-6, "budgets on ep 2")


def test_merge_puts_tuned_experts_back(emo):
    """The cut model's experts, doubled, back in the parent."""
    model, cut = train(emo), child(emo)
    kept = json.loads((cut / "pruning_metadata.json").read_text())["experts_kept_per_layer"]
    tuned = emo.folder / "tuned"
    tuned.mkdir()
    for name in ("config.json", "pruning_metadata.json"):
        (tuned / name).write_text((cut / name).read_text())
    save_file({name: 2 * tensor for name, tensor in tensors_of(cut).items()}, tuned / "model.safetensors")
    parent = tensors_of(model)
    for flags, factor in (([], 2.0), (["--alpha", 0.5], 1.5), (["--router", "--shared", "--rest"], 2.0)):
        out = emo.folder / f"merged{len(flags)}"
        emo.run("experts", "merge", model, tuned, out, *flags)
        merged = tensors_of(out)
        check(merged.keys() == parent.keys(), "tensors of the merged model")
        for name, tensor in parent.items():
            parts = name.split(".")
            changed = "--rest" in flags
            expected = tensor * (factor if changed else 1)
            if ".mlp.experts." in name:
                layer, expert = int(parts[2]), int(parts[5])
                changed = expert in kept[layer] and (expert < E or "--shared" in flags)
                expected = tensor * (factor if changed else 1)
            elif ".mlp.gate." in name:
                rows = np.isin(np.arange(E + 1), kept[int(parts[2])]) if "--router" in flags else np.zeros(E + 1, bool)
                expected = np.where(rows[:, None], factor * tensor, tensor)
            check(np.array_equal(merged[name], expected), f"{flags}: {name}")
        emo.run("eval", out, "--data", emo.folder / "data")


def cut_sizes(emo: Program) -> list[str]:
    top_k = json.loads((child(emo) / "config.json").read_text())["num_experts_per_tok"]
    return ["model.num_experts=8", f"model.top_k={top_k}"]


def test_bench_step_from_a_cut_model_and_a_subset_of_its_parent_begin_alike(emo):
    """On two ranks too."""
    def loss(*overrides, **options) -> float:
        return emo.json("bench", "step", "configs/tiny.yaml", f"data.path={emo.folder}/data", "data.synthetic=none",
                        "model.vocab_size=400", f"data.sequence_length={S}", *cut_sizes(emo),
                        "routing.pool=none", "run.change_contract=true", "--steps", 1,
                        "--warmup", 0, *overrides, **options)["loss"]

    cut = loss(f"run.start_from={child(emo)}")
    of_subset = loss(f"run.start_from={train(emo)}", f"run.experts={subset_of(emo, 'layerwise')}")
    check(of_subset == cut, "bench step from a cut model and a subset")
    near(np.array(loss(f"run.start_from={child(emo)}", "parallel.ep=2", ranks=2)), np.array(cut), 1e-6, "on two ranks")
    check(abs(loss() - cut) > 1e-3, "bench step from initial weights is another")
    emo.run("bench", "step", "configs/tiny.yaml", f"run.start_from={emo.folder}/nothing", expect=66)


def tune(emo: Program, name: str, *overrides, **options) -> dict[str, np.ndarray]:
    """Two steps of a run whose sizes are the cut model's; its tensors."""
    emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder / name}", f"data.path={emo.folder}/data",
            "data.synthetic=none", "model.vocab_size=400", f"data.sequence_length={S}", "train.steps=2",
            *cut_sizes(emo), "routing.pool=none", "run.change_contract=true", "--quiet",
            *overrides, **options)
    return tensors_of(emo.folder / name / "step-0000002")


@once
def tuned(emo: Program) -> dict[str, dict[str, np.ndarray]]:
    """By run: from the cut model, and from the same subset of its parent."""
    return {"from-cut": tune(emo, "from-cut", f"run.start_from={child(emo)}"),
            "from-view": tune(emo, "from-view", f"run.start_from={train(emo)}", f"run.experts={subset_of(emo, 'layerwise')}")}


def test_tuning_a_cut_model_and_a_subset_of_its_parent_is_the_same(emo):
    for name, tensor in tuned(emo)["from-cut"].items():
        check(np.array_equal(tuned(emo)["from-view"][name], tensor),
              f"{name} differs between a cut model and a subset of its parent")


def test_a_tuned_checkpoint_knows_whose_experts_it_has(emo):
    kept = json.loads(subset_of(emo, "layerwise").read_text())["experts_kept_per_layer"]
    for run in tuned(emo):
        out = emo.folder / f"merged-{run}"
        # The run's folder stands for its newest checkpoint.
        emo.run("experts", "merge", train(emo), emo.folder / run, out, "--rest", "--router", "--shared")
        merged = tensors_of(out)
        for name, tensor in tuned(emo)["from-cut"].items():
            parts = name.split(".")
            if ".mlp.experts." in name:
                parts[5] = str(kept[int(parts[2])][int(parts[5])])
            found = merged[".".join(parts)]
            found = found[kept[int(parts[2])]] if ".mlp.gate." in name else found
            check(np.array_equal(found, tensor), f"{name} of {run}, merged")
    for steps in (2, 3):
        tune(emo, "resumed", f"run.start_from={child(emo)}", "schedule.kind=constant", f"train.steps={steps}")
    emo.run("experts", "merge", train(emo), emo.folder / "resumed/step-0000003", emo.folder / "merged-resumed")


def test_what_is_frozen_stays(emo):
    before = tensors_of(child(emo))
    for name, tensor in tune(emo, "frozen", f"run.start_from={child(emo)}", "train.freeze=routed").items():
        routed = ".mlp.experts." in name and ".mlp.experts.7." not in name
        check(np.array_equal(tensor, before[name]) == routed, f"{name} with train.freeze=routed")


def test_layers_that_keep_different_numbers_are_tuned(emo):
    """One of them keeps fewer experts than a token chooses."""
    folder = budgets(emo)["3,12"]
    sizes = json.loads((folder / "config.json").read_text())
    uneven = [f"run.start_from={folder}", "model.num_experts=12", "model.experts_per_layer=[3, 12]",
              f"model.top_k={sizes['num_experts_per_tok']}"]
    after, before = tune(emo, "uneven", *uneven), tensors_of(folder)
    for name, tensor in tune(emo, "uneven-ep2", *uneven, "parallel.ep=2", ranks=2).items():
        near(tensor, after[name], 1e-5, f"{name} of layers of different sizes on two ranks")
    check(after.keys() == before.keys(), "tuning changed which tensors there are")
    for name in after:
        check(not np.array_equal(after[name], before[name]), f"{name} was not tuned")
    again = json.loads((emo.folder / "uneven/step-0000002/config.json").read_text())
    check(again["num_experts_per_layer"] == [3, 12], "the tuned model's sizes")
    error = emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder}/no", "data.synthetic=none", f"data.path={emo.folder}/data",
                    "model.vocab_size=400", *uneven, "model.experts_per_layer=[4, 12]", "routing.pool=none",
                    "run.change_contract=true", expect=65).stderr
    check("layers.0.mlp.experts.3.gate_proj.weight is missing" in error, f"other sizes: {error}")


def test_a_subset_needs_a_model_that_it_is_of(emo):
    error = emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder}/no",
                    f"run.experts={subset_of(emo, 'layerwise')}", expect=64).stderr
    check("run.start_from" in error, error)


def test_what_cannot_be_is_refused_by_name(emo):
    model, subset, cut, data = train(emo), subset_of(emo, "layerwise"), child(emo), ["--data", emo.folder / "data"]
    rank = ["experts", "rank", model, *data, "--output", emo.folder / "never.json"]
    content = json.loads(subset.read_text())
    other = emo.folder / "other.json"
    other.write_text(json.dumps({**content, "identity": "0" * 64}))
    half = emo.folder / "half.json"
    half.write_text(json.dumps({**content, "experts_kept_per_layer": [[4.5, 32], [4, 32]]}))
    poisoned = emo.folder / "poisoned"
    shutil.copytree(cut, poisoned)
    save_file({n: np.full_like(t, np.nan) if n == "model.norm.weight" else t for n, t in tensors_of(cut).items()},
              poisoned / "model.safetensors")
    broken = emo.folder / "broken.json"
    broken.write_text(json.dumps({**content, "experts_kept_per_layer": [[0, 0, 99], [31, 40]]}))
    for arguments, code, hints in [
            ([*rank, "--keep", 33], 64, ["33", "from 2 to 32"]),
            ([*rank, "--keep", 8, "--label", f"{LABELS[0]},{LABELS[0]}"], 64, ["given twice"]),
            (["experts", "usage", model, *data, "--label", f"{LABELS[0]},{LABELS[0]}", "--output", emo.folder / "never.json"], 64, ["given twice"]),
            (["experts", "retention", f"m={model}", f"m={model}", "--calibration", emo.folder / "data", *data], 64, ["called m"]),
            (["eval", poisoned, *data], 77, ["model.norm.weight is not finite"]),
            (["experts", "compare", model, subset, half], 65, ["4.5"]),
            ([*rank, "--keep", 1], 64, ["from 2 to 32"]),
            ([*rank, "--keep", "0.x"], 64, ["a share of the experts"]),
            ([*rank], 64, ["--keep"]),
            ([*rank, "--keep", 8, "--keep-per-layer", "8,8"], 64, ["either"]),
            ([*rank, "--keep-per-layer", "8,33"], 64, ["layer 1", "33"]),
            ([*rank, "--keep-per-layer", "8"], 64, ["1 numbers", "2 layers"]),
            ([*rank, "--keep", 8, "--label", "colour"], 64, ["did you mean 'colours'", "numbers"]),
            ([*rank, "--keep", 8, "--label", "colours", "--documents", 101], 64, ["101", "has 100"]),
            ([*rank, "--keep", 8, "--documents", 0], 64, ["from 1"]),
            ([*rank, "--keep", "8,16"], 64, ["--output-folder"]),
            ([*rank, "--keep", 8, "--method", "best"], 64, ["layerwise"]),
            (["eval", model, *data, "--experts", other], 65, ["another model"]),
            (["experts", "extract", model, other, emo.folder / "never"], 65, ["another model"]),
            (["experts", "extract", cut, subset, emo.folder / "never"], 65, ["another model"]),
            (["experts", "extract", model, broken, emo.folder / "never"], 65,
             ["expert 99 of 32", "must ascend", "all 1 shared", "expert 40 of 32", "layer 1: no routed"]),
            (["experts", "extract", model, emo.folder / "nowhere.json", emo.folder / "never"], 66, ["nowhere.json"]),
            (["experts", "extract", emo.folder, subset, emo.folder / "never"], 66, ["config.json"]),
            (["experts", "extract", model, subset, cut], 73, ["stands already"]),
            (["experts", "merge", model, model, emo.folder / "never"], 66, ["pruning_metadata.json"]),
            (["experts", "merge", cut, cut, emo.folder / "never"], 65, ["another model"]),
            (["experts", "compare", model, subset, broken], 65, ["broken.json", "expert 99"]),
            (["experts", "compare", model, subset, emo.folder / "none.json"], 66, ["none.json"]),
            (["experts", "usage", model, *data, "--label", "none", "--output", emo.folder / "never.json"], 64, ["colours"]),
    ]:
        error = emo.run(*arguments, expect=code).stderr
        for hint in hints:
            check(hint in error, f"{arguments[:2]}: '{hint}' is not in\n{error}")
    check(not (emo.folder / "never").exists() and not (emo.folder / "never.json").exists(), "an error left something")


if __name__ == "__main__":
    run_cases(globals())
