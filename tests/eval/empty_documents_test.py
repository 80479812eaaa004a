"""A label whose documents have no text: nothing to predict, so no means; tables have '-' and JSON null."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.program import ROOT, Program, check, once, run_cases  # noqa: E402

GOLDEN = ROOT / "tests/golden/compat/0.1.0"
MODEL = GOLDEN / "one/step-0000006"


@once
def prepared(emo: Program) -> pathlib.Path:
    documents = [json.loads(line) for line in open(GOLDEN / "documents.jsonl", encoding="utf-8")][:40]
    with open(emo.folder / "documents.jsonl", "w", encoding="utf-8") as file:
        for i in range(40):
            text = documents[i % len(documents)]["text"]
            file.write(json.dumps({"text": text, "source": "text", "id": f"t{i}"}) + "\n")
            file.write(json.dumps({"text": "", "source": "empty", "id": f"e{i}"}) + "\n")
    data = emo.folder / "data"
    emo.run("prepare", "--tokenizer", GOLDEN / "tokenizer.json", "--output", data, emo.folder / "documents.jsonl")
    return data


def finite(values) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


def test_evaluation(emo):
    data = prepared(emo)
    report = emo.json("eval", MODEL, "--data", data)
    empty, text = report["sources"]["empty"], report["sources"]["text"]
    check(empty["documents"] == 40 and empty["predicted_tokens"] == 0, str(empty))
    check([empty[key] for key in ("loss", "perplexity", "bits_per_byte")] == [None] * 3, str(empty))
    check(report["loss"] == text["loss"], "the documents without text count in the loss")
    table = emo.run("eval", MODEL, "--data", data).stdout
    row = next(line for line in table.splitlines() if line.startswith("empty"))
    check(row.split() == ["empty", "40", "0", "-", "-", "-"] and "nan" not in table, table)


def test_retention(emo):
    data = prepared(emo)
    arguments = ["experts", "retention", MODEL, "--calibration", data, "--data", data, "--keep", "0.5",
                 "--method", "router"]
    report = next(iter(emo.json(*arguments).values()))
    empty, text = report["domains"]["empty"], report["domains"]["text"]
    check(empty["full"] is None and empty["cuts"][0]["increase"] is None, str(empty))
    check(report["full"] == text["full"] and report["cuts"] == text["cuts"], "the mean is not that of the other label")
    table = emo.run(*arguments).stdout
    row = next(line for line in table.splitlines() if line.strip().startswith("empty"))
    check(set(row.split()[1:]) == {"-"} and "nan" not in table, table)


def test_usage(emo):
    data = prepared(emo)
    output = emo.folder / "usage.json"
    table = emo.run("experts", "usage", MODEL, "--data", data, "--output", output).stdout
    check("nan" not in table, table)
    labels = json.loads(output.read_text())["labels"]
    check(labels["empty"]["tokens"] == labels["empty"]["documents"] == 40, "ends of documents are routed")
    for label, numbers in labels.items():
        for key, layers in numbers.items():
            check(not isinstance(layers, list) or all(map(finite, layers)), f"{label}: {key}: {layers}")


def test_training(emo):
    data = prepared(emo)
    run = emo.folder / "run"
    emo.run("train", GOLDEN / "config.yaml", f"run.folder={run}", f"data.path={data}", "train.steps=2", "eval.every=1",
            f"eval.data={data}", "--quiet")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    values = {key: value for line in lines for key, value in line.items() if key.startswith("eval/")}
    check("eval/text/loss" in values, str(values))
    check(not any(key.startswith("eval/empty/") for key in values), str(values))
    check(values["eval/loss"] == values["eval/text/loss"], str(values))


if __name__ == "__main__":
    run_cases(globals())
