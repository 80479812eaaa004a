"""Tasks and generation on a small model trained here, against sums over `emo logits` and the formulas.

Also: tasks as calibration and training documents, and what is refused.
"""
import json
import math
import pathlib
import random
import re
import subprocess
import sys

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.eval.experts.experts_test import train  # noqa: E402
from tests.program import ROOT, Program, check, once, run_cases  # noqa: E402

POSITIONS = 64


def write_lines(path: pathlib.Path, *objects) -> pathlib.Path:
    path.write_text("".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects))
    return path


@once
def tokenizer_of(emo: Program) -> Tokenizer:
    train(emo)
    tokenizer = Tokenizer.from_file(str(emo.folder / "tokenizer.json"))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@once
def guess(emo: Program) -> list[dict]:
    """The questions of guess.jsonl."""
    draw = random.Random(2)
    words = "red green blue one two three é".split()
    items = []
    for i in range(40):
        choices = [" ".join(draw.choice(words) for _ in range(draw.randint(1, 4))) for _ in range(2 + i % 3)]
        items.append({"id": f"q{i}", "context": " ".join(draw.choice(words) for _ in range(draw.randint(1, 30))),
                      "choices": choices, "gold": i % len(choices), "category": ["a", "b", "other"][i % 3],
                      "split": ["test", "test", "train", "shots"][i % 4]})
    header = {"task": "guess", "metric": "acc_uncond", "shots": 2, "description": "Guess.", "not_averaged": ["other"]}
    write_lines(emo.folder / "guess.jsonl", header, *items)
    return items


class Logits:
    """Log-probabilities of sequences, each computed whole and alone."""
    def __init__(self, emo: Program, model: pathlib.Path):
        self.emo, self.model, self.known = emo, model, {}

    def of(self, tokens: list[int]) -> np.ndarray:
        key = tuple(tokens)
        if key not in self.known:
            folder = self.emo.folder
            save_file({"input_ids": np.array([tokens], np.int64)}, str(folder / "in.safetensors"))
            self.emo.run("logits", self.model, "--tokens", folder / "in.safetensors", "--output",
                         folder / "out.safetensors", "--overwrite")
            logits = load_file(folder / "out.safetensors")["logits"][0].astype(np.float64)
            self.known[key] = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return self.known[key]

    def answer(self, context: list[int], tokens: list[int]) -> tuple[float, int]:
        """The sum over the tokens that `context` alone does not give, and their number."""
        common = next((i for i, (a, b) in enumerate(zip(context, tokens)) if a != b), min(len(context), len(tokens)))
        excess = max(0, len(tokens) - POSITIONS)
        tokens, common = tokens[excess:], max(1, max(1, common) - excess)
        values = self.of(tokens)
        return sum(values[t - 1][tokens[t]] for t in range(common, len(tokens))), len(tokens) - common


def expected_metrics(item: dict, scores: list[tuple], plain: list[float]) -> dict:
    lengths = [len(choice) for choice in item["choices"]]
    by_rule = {"raw": [s for s, _ in scores], "per_char": [s / n for (s, _), n in zip(scores, lengths)],
               "per_token": [s / n for s, n in scores], "uncond": [s - p for (s, _), p in zip(scores, plain)]}
    gold = item["gold"]
    metrics = {f"acc_{rule}": float(np.argmax(values) == gold) for rule, values in by_rule.items()}
    for rule in ("raw", "per_char", "per_token"):
        values = np.array(by_rule[rule])
        metrics[f"soft_loss_{rule}"] = np.exp(values[gold]) / np.exp(values).sum()
    metrics["bits_per_byte"] = -scores[gold][0] / math.log(2) / len(item["choices"][gold].encode())
    return metrics


def test_choices_are_scored_as_the_formulas_say(emo):
    model, tokenizer, items = train(emo), tokenizer_of(emo), guess(emo)
    logits = Logits(emo, model)

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    shots = [i for i in items if i["split"] == "shots"]
    expected = []
    for item in (i for i in items if i["split"] == "test"):
        shown = [s for s in shots if s["category"] == item["category"]][:2]
        prompt = "Guess.\n\n" + "".join(f"{s['context']} {s['choices'][s['gold']]}\n\n" for s in shown) + item["context"]
        scores = [logits.answer(encode(prompt), encode(f"{prompt} {c}")) for c in item["choices"]]
        plain = [logits.answer(encode("Answer:"), encode(f"Answer: {c}"))[0] for c in item["choices"]]
        expected.append((item, scores, expected_metrics(item, scores, plain)))
    results = []
    for ranks, ep in ((0, 1), (2, 1), (2, 2)):
        found = emo.json("eval", model, "--tasks", emo.folder / "guess.jsonl", "--predictions",
                         emo.folder / "predictions.jsonl", "--overwrite", "--ep", ep, ranks=ranks)["tasks"]["guess"]
        results.append(found)
        lines = [json.loads(line) for line in open(emo.folder / "predictions.jsonl")]
        check([line["id"] for line in lines] == [item["id"] for item, _, _ in expected], "ids")
        for line, (item, scores, metrics) in zip(lines, expected):
            worst = max(abs(a - b) for a, (b, _) in zip(line["log_likelihoods"], scores))
            check(worst < 2e-3, f"{item['id']}: log-likelihoods off by {worst}")
            for name, value in metrics.items():
                check(abs(line[name] - value) < 2e-3, f"{item['id']}: {name} {line[name]}, expected {value}")
    found = results[0]
    check(found["questions"] == len(expected) and found["shots"] == 2, found)
    for name in ("acc_uncond", "acc_raw", "soft_loss_per_char"):
        values = np.array([m[name] for _, _, m in expected])
        check(abs(found["metrics"][name] - values.mean()) < 1e-3, name)
        error = values.std(ddof=1) / math.sqrt(len(values))
        check(abs(found["metrics"][name + "_standard_error"] - error) < 1e-3, name)
        groups = [np.mean([m[name] for i, _, m in expected if i["category"] == c]) for c in "ab"]
        check(abs(found["macro"][name] - np.mean(groups)) < 1e-3, f"macro {name}")
    check(abs(found["value"] - found["macro"]["acc_uncond"]) < 1e-12, "the primary metric is the macro average")
    check(emo.json("eval", model, "--tasks", emo.folder / "guess.jsonl", "--shots", 0, "--limit", 3)
          ["tasks"]["guess"]["questions"] == 3, "--limit")


PROMPTS = ["red green", "one", "one two three one two three one two", "blue blue red"]


def generate_all(emo: Program) -> list:
    write_lines(emo.folder / "prompts.jsonl", *({"prompt": p} for p in PROMPTS))
    return ["generate", train(emo), "--prompts", emo.folder / "prompts.jsonl", "--max-new-tokens", 20]


@once
def greedy(emo: Program) -> list[dict]:
    return emo.json(*generate_all(emo), "--batch", 3)["answers"]


def test_greedy_answers_take_the_likeliest_token(emo):
    model, tokenizer = train(emo), tokenizer_of(emo)
    logits = Logits(emo, model)
    eos = json.loads((model / "config.json").read_text())["eos_token_id"]
    for prompt, answer in zip(PROMPTS, greedy(emo), strict=True):
        tokens = tokenizer.encode(prompt, add_special_tokens=False).ids
        for token in answer["tokens"]:
            values = logits.of(tokens)[-1]
            check(values[token] > values.max() - 1e-4, f"{prompt!r}: {token} after {tokens}")
            tokens.append(token)
        check(tokenizer.decode(answer["tokens"]) == answer["text"], answer)
        ended = logits.of(tokens)[-1]
        check(answer["end"] == "length" and len(answer["tokens"]) == 20 or
              answer["end"] == "eos" and ended[eos] > ended.max() - 1e-4, answer)


def test_ranks_share_prompts_and_experts(emo):
    model, answers, arguments = train(emo), greedy(emo), generate_all(emo)
    check(emo.json(*arguments, ranks=2)["answers"] == answers, "two ranks, dp 2")
    texts = [a["text"] for a in emo.json(*arguments, "--ep", 2, ranks=2)["answers"]]
    check(sum(a == b["text"] for a, b in zip(texts, answers)) >= 3, "two ranks, ep 2")  # a near tie may flip
    # A rank without a prompt, and one whose prompts end sooner, serve the others with their experts.
    for count, pool in ((1, "none"), (3, "none"), (3, "7")):
        few = ["generate", model, "--max-new-tokens", 9, "--batch", 1, "--pool", pool]
        few += [a for p in PROMPTS[:count] for a in ("--prompt", p)]
        alone = [a["text"] for a in emo.json(*few)["answers"]]
        for ep in (1, 2):
            shared = [a["text"] for a in emo.json(*few, "--ep", ep, ranks=2)["answers"]]
            check(len(shared) == count and sum(map(str.__eq__, alone, shared)) >= count - 1, (shared, alone, ep))


def test_stop_texts_end_an_answer(emo):
    model, answers = train(emo), greedy(emo)
    stop = answers[0]["text"][5:8]
    stopped = emo.json("generate", model, "--prompt", PROMPTS[0], "--max-new-tokens", 20, "--stop", stop)["answers"][0]
    check(stopped["text"] == answers[0]["text"].split(stop)[0] and stopped["end"] == "stop", stopped)
    streamed = emo.run("generate", model, "--prompt", PROMPTS[0], "--max-new-tokens", 20, "--stop", stop).stdout
    check(streamed == PROMPTS[0] + stopped["text"] + "\n", streamed)


def test_drawn_answers_follow_the_seed(emo):
    answers, arguments = greedy(emo), generate_all(emo)
    drawn = [*arguments, "--temperature", 1.5, "--top-p", 0.9, "--seed", 3]
    first = emo.json(*drawn, "--batch", 1)["answers"]
    check(first != answers, "temperature")
    check(first == emo.json(*drawn, "--batch", 1)["answers"], "the same seed")
    check(first != emo.json(*drawn[:-1], 4)["answers"], "another seed")
    with_pool = emo.json(*drawn, "--batch", 1, "--pool", 7)["answers"]
    check(len(with_pool) == 4 and with_pool != first, "a pool of the smallest size changes something")


def test_prompts_that_cannot_be_answered_are_refused(emo):
    model = train(emo)
    for wrong, word in ((["--prompt", " ".join(["red"] * 100)], "tokens"), ([], "--prompt"),
                        (["--prompt", "red", "--pool", "2"], "pool"), (["--prompt", "x", "--stop", ""], "empty")):
        error = emo.run("generate", model, *wrong, expect=64).stderr
        check(word in error, f"{wrong}: {error}")


def test_a_task_of_writing_has_the_answers_of_generate(emo):
    model = train(emo)
    items = [{"context": c, "answers": a} for c, a in (("red green", ["blue 12"]), ("one two", ["three", "the Three!"]))]
    task = write_lines(emo.folder / "write.jsonl", {"task": "write", "kind": "generation", "max_new_tokens": 8,
                                                    "stop": ["zzz"]}, *items)
    found = emo.json("eval", model, "--tasks", task, "--predictions", emo.folder / "written.jsonl")["tasks"]["write"]
    texts = [a["text"] for a in emo.json("generate", model, "--prompt", "red green", "--prompt", "one two",
                                         "--max-new-tokens", 8)["answers"]]
    lines = [json.loads(line) for line in open(emo.folder / "written.jsonl")]
    check([line["text"] for line in lines] == texts, (lines, texts))
    check(found["metric"] == "f1" and found["questions"] == 2, found)


def training_questions(emo: Program) -> list[dict]:
    return [i for i in guess(emo) if i["split"] == "train"]


@once
def prepared_tasks(emo: Program) -> tuple[pathlib.Path, dict]:
    """The training questions as documents, and the summary."""
    train(emo), guess(emo)
    folder = emo.folder / "prepared"
    return folder, emo.json("prepare", "--tasks", "--shots", 0, "--tokenizer", emo.folder / "tokenizer.json", "--output",
                            folder, emo.folder / "guess.jsonl")


@once
def loss_of_answers(emo: Program) -> dict:
    return emo.json("eval", train(emo), "--data", prepared_tasks(emo)[0])


def test_evaluation_of_prepared_tasks_predicts_answers_only(emo):
    model, tokenizer = train(emo), tokenizer_of(emo)
    (_, summary), items = prepared_tasks(emo), training_questions(emo)
    check(summary["documents"] == len(items), summary)
    logits = Logits(emo, model)
    eos = tokenizer.token_to_id("<|endoftext|>")
    total, predicted = 0.0, 0
    for item in items:
        context = tokenizer.encode("Guess.\n\n" + item["context"], add_special_tokens=False).ids
        text = f"Guess.\n\n{item['context']} {item['choices'][item['gold']]}"
        tokens = tokenizer.encode(text, add_special_tokens=False).ids + [eos]
        common = next((i for i, (x, y) in enumerate(zip(context, tokens)) if x != y), len(context))
        at = 0
        while at + 1 < len(tokens):  # pieces of S tokens, each from the last token of the one before
            piece = tokens[at:at + POSITIONS]
            given = min(max(common - at, 1), len(piece))
            total -= sum(logits.of(piece)[t - 1][piece[t]] for t in range(given, len(piece)))
            predicted += len(piece) - given
            at += len(piece) - 1
    loss = loss_of_answers(emo)
    check(loss["predicted_tokens"] == predicted, (loss["predicted_tokens"], predicted))
    check(abs(loss["loss"] - total / predicted) < 1e-3, (loss["loss"], total / predicted))


def test_training_on_prepared_tasks_predicts_answers_only(emo):
    model, (prepared, _) = train(emo), prepared_tasks(emo)
    run = ["train", "configs/tiny.yaml", "data.synthetic=none", f"data.path={prepared}", "model.vocab_size=400",
           f"data.sequence_length={POSITIONS}", "data.documents=whole", f"run.start_from={model}", "train.steps=1",
           "run.change_contract=true", "routing.pool=none", "train.batch=4", "train.micro_batches=1", "--quiet"]
    told = emo.run(*run, f"run.folder={emo.folder}/tuned").stderr
    told = re.search(r"(\d+) of the step's (\d+) tokens are predicted.*routing.losses_over=labelled", told)
    labels, tokens = map(int, told.groups())
    balance = []
    for ranks in (0, 2):
        folder = emo.folder / f"tuned-labelled-{ranks}"
        told = emo.run(*run, "routing.losses_over=labelled", f"run.folder={folder}", ranks=ranks).stderr
        check("are predicted" not in told, told)
        metrics = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        balance.append(metrics["train/load balancing loss unscaled"])
    check(abs(balance[0] - balance[1]) < 1e-5 * balance[0], balance)
    shown = emo.run("data", "show", prepared, "--documents", "whole", "--batch-size", 4, "--sequence-length", POSITIONS).stdout
    check("filling" in shown and "given" in shown, shown)
    metrics = json.loads((emo.folder / "tuned/metrics.jsonl").read_text().splitlines()[-1])
    # The router's losses of all tokens, divided by the labels, against those of labelled tokens.
    larger = metrics["train/load balancing loss unscaled"] / balance[0]
    check(0.8 < larger * labels / tokens < 1.25, (larger, labels, tokens))
    check(math.isfinite(metrics["train/CE loss"]) and abs(metrics["train/CE loss"] - loss_of_answers(emo)["loss"]) < 0.5, metrics)


def test_experts_are_ranked_on_tasks_as_on_their_documents(emo):
    model, (prepared, _), task = train(emo), prepared_tasks(emo), emo.folder / "guess.jsonl"
    subset = ["--keep", 0.5, "--overwrite", "--output"]
    emo.run("experts", "rank", model, "--data", prepared, *subset, emo.folder / "by-data.json")
    for ranks in (0, 2):
        emo.run("experts", "rank", model, "--tasks", task, "--shots", 0, "--label", "guess", *subset,
                emo.folder / "by-tasks.json", ranks=ranks)
        a, b = (json.loads((emo.folder / f"by-{x}.json").read_text()) for x in ("data", "tasks"))
        check(a["experts_kept_per_layer"] == b["experts_kept_per_layer"], "experts ranked on tasks")
    usage = emo.json("experts", "usage", model, "--tasks", task, "--output", emo.folder / "usage-tasks.json")
    check(list(usage["labels"]) == ["guess"] and usage["labels"]["guess"]["documents"] == len(training_questions(emo)), usage.keys())


def test_what_cannot_be_is_refused_by_line(emo):
    model = train(emo)
    good = {"context": "red", "choices": ["a", "b"], "gold": 0}
    wrong = [{"context": "red", "choices": ["a", "b"]}, {"context": "red", "choices": ["a"], "gold": 0},
             {"context": "red", "choices": ["a", "b"], "gold": 2}, {"choices": ["a", "b"], "gold": 0},
             {"context": "", "choices": ["a", ""], "gold": "0"}, {**good, "catgory": "x"}]
    words = ["3: field 'gold' is missing", "4: fewer than two choices", "5: gold is 2 of 2 choices",
             "6: field 'context' is missing", "7: the context is empty", "7: an empty choice", "7: field 'gold'",
             "8: unknown field 'catgory'; did you mean 'category'?"]
    path = write_lines(emo.folder / "wrong.jsonl", {"task": "wrong"}, good, *wrong)
    error = emo.run("eval", model, "--tasks", path, expect=65).stderr
    for word in words:
        check(word in error, f"{word!r} is not in\n{error}")
    path.write_text('{"context": "red", "choices": ["a", "b"], "gold": 0}\n{broken\n[1]\n')
    error = emo.run("eval", model, "--tasks", path, expect=65).stderr
    check("wrong.jsonl:2" in error and "wrong.jsonl:3" in error, error)
    for lines, arguments, code, word in [
            ([], [], 65, "wrong.jsonl"), ([{"task": "t", "kind": "quiz"}, good], [], 65, "kind is 'quiz'"),
            ([{"task": "t", "metric": "f1"}, good], [], 64, "unknown metric 'f1'"),
            ([good], ["--split", "train"], 64, "no question of the split 'train'"),
            ([good], ["--shots", "1"], 64, "1 shots asked for")]:
        write_lines(path, *lines)
        error = emo.run("eval", model, "--tasks", path, *arguments, expect=code).stderr
        check(word in error, f"{word!r} is not in\n{error}")
    check("--tasks" in emo.run("eval", model, expect=64).stderr, "neither data nor tasks")
    emo.run("eval", model, "--tasks", emo.folder / "none.jsonl", expect=66)
    rank = ["experts", "rank", model, "--keep", 8, "--output", emo.folder / "never.json"]
    check("either" in emo.run(*rank, expect=64).stderr, "neither data nor tasks")
    check("either" in emo.run(*rank, "--data", "x", "--tasks", "y", expect=64).stderr, "both data and tasks")


def test_sets_of_little_text_are_well_formed(emo):
    """launch/tasks.py on little text: every set has well-formed questions, and the splits share no document."""
    source = emo.folder / "texts"
    source.mkdir()
    draw = random.Random(4)

    def words(n: int) -> str:
        return " ".join("".join(draw.choice("abcdefgh") for _ in range(draw.randint(2, 9))) for _ in range(n))
    for split in ("test", "validation"):
        documents = []
        for label in ("python", "go", "french manual", "german manual", "dictionary", "word senses", "essays", "scripture"):
            for i in range(4):
                text = "\n".join(words(14) + ("; " if label == "scripture" else ": ") + words(12) for _ in range(30))
                if label == "dictionary":
                    text = "\n\n".join(f"{words(1).title()}xy \\X\\, n.\n   {words(20)}" for _ in range(30))
                documents.append({"text": text, "source": label, "id": f"{label}/{split}{i}"})
        write_lines(source / f"{split}.jsonl", *documents)
    subprocess.run([sys.executable, ROOT / "launch/tasks.py", source, emo.folder / "sets"], check=True, capture_output=True)
    files = sorted((emo.folder / "sets").glob("*.jsonl"))
    check(len(files) == 7, files)
    for file in files:
        items = [json.loads(line) for line in open(file)][1:]
        splits = {i["split"] for i in items}
        check(splits == {"test", "train", "shots"}, f"{file}: {splits}")
        for item in items:
            check(len(set(item["choices"])) == 4 and 0 <= item["gold"] < 4, item)
            check(("/test" in item["id"]) == (item["split"] == "test"), item["id"])


def test_public_benchmarks_become_tasks(emo):
    """launch/public_tasks.py on a few records of each benchmark; what it writes is a task that can be answered."""
    model = train(emo)
    letters = {"text": ["red", "blue"], "label": ["A", "B"]}
    records = {
        "arc_easy": {"question": "q", "choices": letters, "answerKey": "B"},
        "arc_challenge": {"question": "q", "choices": letters, "answerKey": "B"},
        "boolq": {"passage": "p", "question": "q", "answer": False},
        "hellaswag": {"activity_label": "a", "ctx": "c", "endings": ["red", "blue"], "label": "1"},
        "csqa": {"question": "q", "choices": letters, "answerKey": "B"},
        "openbookqa": {"question_stem": "q", "choices": letters, "answerKey": "B"},
        "piqa": {"goal": "g", "sol1": "red", "sol2": "blue", "label": 1},
        "socialiqa": {"context": "c", "question": "q", "answerA": "red", "answerB": "blue", "answerC": "x", "label": "2"},
        "winogrande": {"sentence": "the _ is big", "option1": "red", "option2": "blue", "answer": "2"},
        "squad": {"context": "c", "question": "q", "answers": {"text": ["red"]}},
        "naturalqs": {"question": "q", "answer": ["red"]},
        "triviaqa": {"question": "q", "answer": {"value": "red", "aliases": ["Red"]}},
        "drop": {"passage": "p", "question": "q", "answers_spans": {"spans": ["red"]}},
        "coqa": {"story": "s", "questions": ["q1", "q2"], "answers": {"input_text": ["red", "blue"]}},
        "gsm8k": {"question": "q", "answer": "so it is\n#### 12"},
        "mmlu": {"question": "q", "subject": "astronomy", "choices": ["red", "blue"], "answer": 1},
        "mmlu_pro": {"question": "q", "options": ["red", "blue"], "answer_index": 1, "category": "law"}}
    folder = emo.folder / "public"
    folder.mkdir()
    for name, record in records.items():
        source = write_lines(folder / "records.txt", *[record] * 400)
        files = ["--dev", source, "--validation", source, "--test", source] if name.startswith("mmlu") else \
            ["--train", source, "--validation", source]
        subprocess.run([sys.executable, ROOT / "launch/public_tasks.py", name, folder / f"{name}.jsonl", *files], check=True,
                       capture_output=True)
        items = [json.loads(line) for line in open(folder / f"{name}.jsonl")][1:]
        check(all(i.get("gold", 1) == 1 for i in items), name)
        count = {s: sum(i["split"] == s for i in items) for s in ("shots", "train", "test")}
        expected = {"mmlu": (400, 640, 160), "mmlu_pro": (400, 220, 180), "coqa": (0, 800, 800), "gsm8k": (8, 392, 400)}
        check(tuple(count.values()) == expected.get(name, (5, 395, 400)), f"{name}: {count}")
        if name != "gsm8k" and name != "drop":  # which write more than this model has positions
            emo.run("eval", model, "--tasks", folder / f"{name}.jsonl", "--limit", 2)
    wrong = subprocess.run([sys.executable, ROOT / "launch/public_tasks.py", "piqa", folder / "never.jsonl", "--train",
                            folder / "arc_easy.jsonl"], capture_output=True, text=True)
    check(wrong.returncode != 0 and "not the files of piqa" in wrong.stderr, wrong.stderr)


if __name__ == "__main__":
    run_cases(globals())
