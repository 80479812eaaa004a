"""Evaluation on a device, its kernels as loops on the CPU, says what the CPU says: losses with pools and subsets,
usage, rankings, retention, placement, logits, tasks, and evaluation while a device trains. With EMO_TEST_DEVICE=cuda,
and the program of build/cuda, on two GPUs."""
import json
import os
import pathlib
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.eval.experts.experts_test import LABELS, S, near, train  # noqa: E402
from tests.program import Program, check, once, run_cases  # noqa: E402

WHERE = os.environ.get("EMO_TEST_DEVICE", "emulated")
DEVICE = ["--device", WHERE]
TWO = ["--ep", 2]


def data(emo: Program) -> pathlib.Path:
    train(emo)
    return emo.folder / "data"


def numbers_of(value) -> list[float]:
    """All numbers of a JSON value, in order."""
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers_of(v)]
    if isinstance(value, list):
        return [n for v in value for n in numbers_of(v)]
    return [float(value)] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def same(emo: Program, *arguments, tolerance: float = 1e-5, ranks: int = 0, layout=()) -> dict:
    """What a command prints on the CPU, after comparing with a device."""
    expected = emo.json(*arguments)
    found = emo.json(*arguments, *DEVICE, *layout, ranks=ranks)
    near(numbers_of(found), numbers_of(expected), tolerance, " ".join(map(str, arguments[:2])))
    return expected


@once
def subset(emo: Program) -> pathlib.Path:
    emo.run("experts", "rank", train(emo), "--data", data(emo), "--label", LABELS[0], "--method", "router", "--keep", 8,
            "--output", emo.folder / "device-subset.json")
    return emo.folder / "device-subset.json"


def test_losses(emo):
    model, whole = train(emo), ["--data", data(emo)]
    for layout, ranks in (((), 0), (TWO, 2), (["--dp", 2], 2)):
        same(emo, "eval", model, *whole, layout=layout, ranks=ranks)
    losses = [same(emo, "eval", model, *whole, *options)["loss"]
              for options in ([], ["--pool", 8], ["--pool", "5-20"], ["--experts", subset(emo)],
                              ["--experts", subset(emo), "--full-weights"],
                              ["--experts", subset(emo), "--full-weights", "--pool", 8])]
    check(len({round(loss, 9) for loss in losses}) == len(losses), f"options that change nothing: {losses}")


def test_bf16(emo):
    exact, rounded = (emo.json("eval", train(emo), "--data", data(emo), *DEVICE, *options)["loss"]
                      for options in ([], ["--precision", "bf16"]))
    check(0 < abs(rounded - exact) < 0.02, f"bf16 {rounded}, fp32 {exact}")
    refused = emo.run("eval", train(emo), "--data", data(emo), "--precision", "bf16", expect=64)
    check("--device" in refused.stderr, refused.stderr)


def test_usage(emo):
    same(emo, "experts", "usage", train(emo), "--data", data(emo), "--pool", 9, "--overwrite",
         "--output", emo.folder / "device-usage.json", layout=TWO, ranks=2, tolerance=2e-3)


def test_rankings(emo):
    for method in ("layerwise", "router", "easy_ep"):
        files = {}
        for where, options, ranks in (("cpu", [], 0), ("device", DEVICE, 0), ("two", [*DEVICE, *TWO], 2)):
            files[where] = emo.folder / f"{method}-{where}.json"
            emo.run("experts", "rank", train(emo), "--data", data(emo), "--label", LABELS[1], "--method", method, "--keep", 8,
                    "--output", files[where], *options, ranks=ranks)
        expected, *others = (json.loads(file.read_text()) for file in files.values())
        for found in others:
            check(found["experts_kept_per_layer"] == expected["experts_kept_per_layer"], method)
            near(found["scores"], expected["scores"], 2e-3, method)


def test_retention(emo):
    same(emo, "experts", "retention", train(emo), "--calibration", data(emo), "--data", data(emo), "--test-documents", 5,
         layout=TWO, ranks=2)


def test_placement(emo):
    for where, options in (("cpu", []), ("device", DEVICE)):
        emo.run("experts", "place", train(emo), "--data", data(emo), "--ranks", 2, "--output", emo.folder / f"place-{where}.json",
                *options)
    check((emo.folder / "place-cpu.json").read_text() == (emo.folder / "place-device.json").read_text(), "other places")


def test_logits(emo):
    tokens = emo.folder / "device-tokens.safetensors"
    save_file({"input_ids": np.arange(2 * S, dtype=np.int32).reshape(2, S)}, str(tokens))
    for where, options in (("cpu", []), ("device", DEVICE)):
        emo.run("logits", train(emo), "--tokens", tokens, "--pool", 9, "--output", emo.folder / f"logits-{where}", *options)
    near(load_file(emo.folder / "logits-device")["logits"], load_file(emo.folder / "logits-cpu")["logits"], 1e-5, "logits")


@once
def tasks(emo: Program) -> pathlib.Path:
    folder = emo.folder / "device-tasks"
    folder.mkdir()
    (folder / "next.jsonl").write_text("".join(
        json.dumps({"id": str(i), "context": "red green" * (1 + i % 3), "choices": [" blue", " three", " one"], "gold": i % 3})
        + "\n" for i in range(9)))
    (folder / "write.jsonl").write_text(
        json.dumps({"task": "write", "kind": "generation", "metric": "f1", "max_new_tokens": 4}) + "\n"
        + json.dumps({"id": "0", "context": "one two ", "answers": ["three"]}) + "\n")
    return folder


def test_tasks(emo):
    same(emo, "eval", train(emo), "--tasks", tasks(emo), layout=TWO, ranks=2)


def test_texts(emo):
    """Several prompts at once in fewer slots, with pools that are kept and without."""
    prompts = [part for text in ("red green", "one", "blue blue red green red", "two three one") for part in ("--prompt", text)]
    for pool in (["--pool", "none"], ["--pool", "9"]):
        arguments = ["generate", train(emo), *prompts, "--max-new-tokens", 24, "--batch", 3, *pool]
        expected, *others = (emo.json(*arguments, *where, ranks=ranks)["answers"]
                             for where, ranks in (([], 0), (DEVICE, 0), ([*DEVICE, *TWO], 2)))
        check(all(found == expected for found in others), f"{pool}: {others}, expected {expected}")


def test_what_a_device_cannot_do_is_refused(emo):
    emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder}/odd", "model.d_expert=10", "train.steps=1", "--quiet")
    for arguments, hint in ((["eval", emo.folder / "odd", "--data", data(emo), *DEVICE], "multiples of 4"),
                            (["eval", train(emo), "--data", data(emo), "--device", "gpu"], "emulated"),
                            *([(["eval", train(emo), "--data", data(emo), "--device", "cuda"], "cuda")] if WHERE != "cuda" else [])):
        failed = emo.run(*arguments, expect=64)
        check(hint in failed.stderr, failed.stderr)


def test_evaluation_while_a_device_trains(emo):
    def last(name: str, *overrides, ranks: int = 0) -> dict:
        emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder / name}", f"data.path={data(emo)}", "data.synthetic=none",
                "model.vocab_size=400", f"data.sequence_length={S}", "train.steps=4", "eval.every=2", "eval.tokens=4000",
                f"eval.data={data(emo)}", f"eval.tasks={tasks(emo)}", "--quiet", *overrides, ranks=ranks)
        return json.loads((emo.folder / name / "metrics.jsonl").read_text().splitlines()[-1])

    expected = {key: value for key, value in last("eval-cpu").items() if key.startswith("eval/") and "share" not in key}
    check(len(expected) > 8, f"{expected}")
    for name, overrides, ranks in (("eval-device", [], 0), ("eval-two", ["parallel.ep=2"], 2)):
        found = last(name, f"parallel.device={WHERE}", *overrides, ranks=ranks)
        for key, value in expected.items():
            check(abs(found[key] - value) <= 1e-4 * max(1, abs(value)), f"{name}: {key} {found[key]}, {value}")
    found = last("eval-bf16", f"parallel.device={WHERE}", "parallel.precision=bf16")
    check(abs(found["eval/loss"] - expected["eval/loss"]) < 0.02, f"bf16: {found['eval/loss']}, {expected['eval/loss']}")


if __name__ == "__main__":
    run_cases(globals())
