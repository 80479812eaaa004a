"""Evaluation while training: each value again by `emo experts rank` and `emo eval`, and no effect on the training."""
import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.eval.experts.experts_test import S, train  # noqa: E402
from tests.launch.documents_test import metric_names  # noqa: E402
from tests.program import Program, check, once, run_cases  # noqa: E402

DOMAINS = {"colours": ["red green green blue red", "blue blue green"], "numbers": ["one two", "three three one two"]}
STEPS = 5
EVAL_POOL = 18  # (min + max) / 2 of configs/tiny.yaml


def prepare(emo: Program, name: str, label_of) -> pathlib.Path:
    with open(emo.folder / f"{name}.jsonl", "w") as file:
        for domain, texts in DOMAINS.items():
            for i, text in enumerate(texts):
                file.write(json.dumps({"text": text, "source": label_of(domain, i), "id": f"{domain}{i}"}) + "\n")
    emo.run("prepare", "--tokenizer", emo.folder / "tokenizer.json", "--output", emo.folder / name,
            emo.folder / f"{name}.jsonl")
    return emo.folder / name


def run(emo: Program, name: str, *overrides, **options) -> tuple[pathlib.Path, list[dict]]:
    emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder / name}", f"data.path={emo.folder}/data",
            "data.synthetic=none", "model.vocab_size=400", f"data.sequence_length={S}", f"train.steps={STEPS}", "--quiet",
            *overrides, **options)
    return (emo.folder / name / f"step-{STEPS:07}",
            [json.loads(line) for line in open(emo.folder / name / "metrics.jsonl")])


def write_tasks(folder: pathlib.Path) -> pathlib.Path:
    """A task of choices and one of writing, more questions than a small size allows."""
    folder.mkdir()
    with open(folder / "next.jsonl", "w") as file:
        for i in range(40):
            file.write(json.dumps({"id": str(i), "context": "red green" * (1 + i % 3), "choices": [" blue", " three", " one"],
                                   "gold": i % 3}) + "\n")
    with open(folder / "write.jsonl", "w") as file:
        file.write(json.dumps({"task": "write", "kind": "generation", "metric": "f1", "max_new_tokens": 4}) + "\n")
        for i in range(3):
            file.write(json.dumps({"id": str(i), "context": "one two " * (1 + i), "answers": ["three", "red"]}) + "\n")
    return folder


@once
def domains(emo: Program) -> pathlib.Path:
    """Two documents of each domain: one calibrates, the other is evaluated."""
    train(emo)  # the tokenizer, and text to train on
    return prepare(emo, "domains", lambda domain, i: domain)


@once
def single(emo: Program) -> pathlib.Path:
    """The same documents, each with a label of its own."""
    train(emo)
    return prepare(emo, "single", lambda domain, i: f"{domain}{i}")


def evaluation(emo: Program) -> list[str]:
    return [f"eval.data={domains(emo)}", "eval.every=2", "eval.tokens=1500"]


@once
def plain(emo: Program) -> pathlib.Path:
    train(emo)
    return run(emo, "plain")[0]


@once
def evaluated(emo: Program) -> tuple[pathlib.Path, list[dict]]:
    return run(emo, "evaluated", *evaluation(emo))


def has_the_weights_of_plain(emo: Program, model: pathlib.Path, what: str) -> None:
    for file in sorted(plain(emo).glob("*.safetensors")):
        check(file.read_bytes() == (model / file.name).read_bytes(), f"{file.name} differs with {what}")


@once
def tasks_of(emo: Program) -> pathlib.Path:
    train(emo)
    return write_tasks(emo.folder / "questions")


@once
def with_tasks(emo: Program) -> dict[str, tuple[pathlib.Path, list[dict]]]:
    """Tasks alone and beside data."""
    return {name: run(emo, name, f"eval.tasks={tasks_of(emo)}", "eval.every=2", "eval.tokens=900", *options)
            for name, options in {"tasks": [], "both": [f"eval.data={domains(emo)}"]}.items()}


def test_tasks_are_answered_as_emo_eval_does(emo):
    """What it says of the same checkpoint with the pools of evaluation."""
    tasks, counts = tasks_of(emo), {}
    for name, (model, metrics) in with_tasks(emo).items():
        last = metrics[-1]
        check(("eval/loss" in last) == (name == "both"), f"{name}: the loss of data that was named or not")
        for task, metric in (("next", "acc_per_char"), ("write", "f1")):
            counts[name, task] = int(last[f"eval/tasks/{task}/questions"])
            expected = emo.json("eval", model, "--tasks", tasks / f"{task}.jsonl", "--limit", counts[name, task],
                                "--pool", EVAL_POOL)["tasks"][task]["metrics"]
            for found in (metric, *(["bits_per_byte"] if task == "next" else [])):
                check(abs(last[f"eval/tasks/{task}/{found}"] - expected[found]) < 1e-5, f"{name} {task} {found}")
    check(1 <= counts["both", "next"] < counts["tasks", "next"] < 40, f"the size does not bound the questions: {counts}")


def test_tasks_change_no_weight(emo):
    for model, _ in with_tasks(emo).values():
        has_the_weights_of_plain(emo, model, "tasks")


def test_two_ranks_answer_the_same_questions(emo):
    tasks, (_, alone) = tasks_of(emo), with_tasks(emo)["tasks"]
    _, metrics = run(emo, "tasks2", f"eval.tasks={tasks}", "eval.every=2", "eval.tokens=900", "parallel.ep=2", ranks=2)
    asked = "eval/tasks/next/questions"
    check(int(metrics[-1][asked]) == int(alone[-1][asked]), "two ranks answer other questions")


@once
def as_token_files(emo: Program) -> list[str]:
    """The data of all runs here, as if nobody had prepared it."""
    train(emo)
    info = json.loads((emo.folder / "data" / "dataset.json").read_text())
    return [f"data.path={emo.folder}/data/tokens-*.npy", f"data.eos_id={info['eos_id']}"]


def test_runs_on_token_files_evaluate_the_same(emo):
    tokenizer = f"data.tokenizer={emo.folder}/tokenizer.json"
    for name, overrides in {"evaluated": evaluation(emo),
                            "tasks": [f"eval.tasks={tasks_of(emo)}", "eval.every=2", "eval.tokens=900"]}.items():
        prepared = (evaluated(emo) if name == "evaluated" else with_tasks(emo)["tasks"])[1]
        _, metrics = run(emo, f"{name} of token files", *as_token_files(emo), tokenizer, *overrides)
        values = [{key: value for key, value in step.items() if key.startswith(("eval/", "train/CE")) and "share" not in key}
                  for step in (prepared[-1], metrics[-1])]
        check(len(values[0]) > 2 and values[0] == values[1], f"{name}: {values}")


def test_evaluation_with_another_tokenizer_is_refused(emo):
    """Or with one that is not known: its ids could mean anything."""
    text = json.loads((emo.folder / "tokenizer.json").read_text())
    text["model"]["merges"] = text["model"]["merges"][:-1]
    other = emo.folder / "other-tokenizer.json"
    other.write_text(json.dumps(text))
    files, known = as_token_files(emo), f"data.tokenizer={emo.folder}/tokenizer.json"
    tasks = [f"eval.tasks={tasks_of(emo)}", "eval.every=2"]
    for overrides, code, said in (([*files, *evaluation(emo)], 64, "data.tokenizer"),
                                  ([*files, *tasks], 64, "data.tokenizer"),
                                  ([*files, f"data.tokenizer={other}", *evaluation(emo)], 65, "another tokenizer"),
                                  ([*files, known, "data.eos_id=7", *evaluation(emo)], 65, "documents end with")):
        stderr = run_fails(emo, overrides, code)
        check(said in stderr, stderr)


def run_fails(emo: Program, overrides: list[str], code: int) -> str:
    return emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder}/failed", f"data.path={emo.folder}/data",
                   "data.synthetic=none", "model.vocab_size=400", f"data.sequence_length={S}", "train.steps=2", *overrides,
                   expect=code).stderr


def test_evaluation_of_nothing_is_refused(emo):
    train(emo)
    for overrides, hint in [(["eval.every=2", f"eval.tasks={emo.folder}/nowhere"], "nowhere"),
                            (["eval.every=2"], "eval.tasks")]:
        failed = emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder}/failed", f"data.path={emo.folder}/data",
                         "data.synthetic=none", "model.vocab_size=400", *overrides, expect=None)
        check(failed.returncode != 0 and hint in failed.stderr, f"{overrides}: {failed.stderr}")


def test_evaluation_changes_no_weight(emo):
    has_the_weights_of_plain(emo, evaluated(emo)[0], "evaluation")


def test_evaluation_comes_at_its_steps(emo):
    _, metrics = evaluated(emo)
    steps = [m["step"] for m in metrics if "eval/loss" in m]
    check(steps == [2, 4, 5], f"evaluated at {steps}")
    check(0 < metrics[-1]["eval/share of time"] <= 1, metrics[-1])


def test_the_curve_is_what_the_commands_give(emo):
    (model, metrics), data = evaluated(emo), single(emo)
    last = metrics[-1]
    whole = emo.json("eval", model, "--data", data)["sources"]
    sums: dict[str, float] = {}
    for domain in DOMAINS:
        pairs = [("0", "1"), ("1", "0")]  # calibrates, evaluated
        by, on = min(pairs, key=lambda pair: abs(whole[domain + pair[1]]["loss"] - last[f"eval/{domain}/loss"]))
        expected = {"loss": whole[domain + on]["loss"]}
        for keep in (8, 16):
            emo.run("experts", "rank", model, "--data", data, "--label", domain + by, "--method", "router", "--keep",
                    keep, "--output", emo.folder / "subset.json", "--overwrite")
            cut = emo.json("eval", model, "--data", data, "--experts", emo.folder / "subset.json")
            expected[f"loss with {keep} experts"] = cut["sources"][domain + on]["loss"]
        for name, value in expected.items():
            found = last[f"eval/{domain}/{name}"]
            check(abs(found - value) < 1e-4, f"{domain} {name}: {found}, expected {value}")
            sums[name] = sums.get(name, 0) + value / len(DOMAINS)
    for name, value in sums.items():
        check(abs(last[f"eval/{name}"] - value) < 1e-4, f"mean {name}")
    check("eval/loss with 32 experts" not in last, "a point beyond the model's experts")


def test_two_ranks_have_the_same_curve(emo):
    last = evaluated(emo)[1][-1]
    for layout in (["parallel.ep=2"], ["parallel.ep=1"]):
        _, others = run(emo, layout[0], *evaluation(emo), *layout, ranks=2)
        for name in ("eval/loss", "eval/colours/loss with 8 experts"):
            check(abs(others[-1][name] - last[name]) < 1e-3, f"{layout}: {name} {others[-1][name]}, {last[name]}")


def test_a_share_is_measured_once(emo):
    """On the first rank, and kept in checkpoints: a run that goes on evaluates as many questions, on any layout."""
    questions, says = "eval/tasks/next/questions", "an evaluation takes"

    def steps(count: int, *overrides, ranks: int = 1) -> tuple[str, dict, dict]:
        done = emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder}/share", f"data.path={emo.folder}/data",
                       "data.synthetic=none", "model.vocab_size=400", f"data.sequence_length={S}", "schedule.kind=constant",
                       f"train.steps={count}", f"eval.tasks={tasks_of(emo)}", "eval.every=2", *overrides, "--quiet", ranks=ranks)
        state = json.loads((emo.folder / "share" / f"step-{count:07}" / "state.json").read_text())
        metrics = [json.loads(line) for line in open(emo.folder / "share" / "metrics.jsonl")]
        return done.stderr, state["evaluation"], metrics[-1]

    said, first, metrics = steps(2, "eval.share=0.05", ranks=2)
    check(said.count(says) == 1, f"two ranks say:\n{said}")
    check(first["tokens"] >= 1 and (first["every"], first["share"]) == (2, 0.05), first)
    for layout in (["parallel.ep=2"], ["parallel.ep=1"]):
        said, again, later = steps(4 if layout[0][-1] == "2" else 6, "eval.share=0.05", *layout, ranks=2)
        check(says not in said and again == first, f"measured again: {again}, before {first}")
        check(later[questions] == metrics[questions], f"{later[questions]} questions, before {metrics[questions]}")
    said, other, _ = steps(8, "eval.share=0.5")
    check(says in said and other["share"] == 0.5 and other["tokens"] >= 1, f"{other}, before {first}")
    said, kept, _ = steps(10, "eval.share=0.5", "eval.tokens=300")
    check(says not in said and kept == other, "a size in tokens measures nothing, and leaves what was measured")


def test_every_metric_of_evaluation_is_described(emo):
    """In docs/metrics.md, and the other way round."""
    described = {name for name in metric_names() if name.startswith("eval/")}
    logged = {name for _, metrics in with_tasks(emo).values() for name in metrics[-1] if name.startswith("eval/")}
    found = {re.sub(r"loss with \d+ experts", "loss with N experts",
                    re.sub(r"/(acc_per_char|f1)$", "/METRIC", re.sub("tasks/(next|write)/", "tasks/TASK/",
                                                                     re.sub("/(colours|numbers)/", "/LABEL/", name))))
             for name in logged}
    check(found == described, f"only logged: {found - described}; only in docs/metrics.md: {described - found}")


if __name__ == "__main__":
    run_cases(globals())
