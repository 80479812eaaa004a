"""Public benchmarks, from the files that you have of them, to task files (docs/tasks.md).

Usage: public_tasks.py BENCHMARK OUTPUT.jsonl [--train FILE ...] [--validation FILE ...] [--test FILE ...] [--dev FILE ...]
Example: public_tasks.py arc_easy tasks/arc_easy.jsonl --train arc/train.jsonl --test arc/test.jsonl
         public_tasks.py mmlu tasks/mmlu.jsonl --dev mmlu/dev.jsonl --validation mmlu/val.jsonl --test mmlu/test.jsonl

FILE is JSON lines or parquet (then pyarrow must be installed), with the fields that the benchmark has on the
Hugging Face hub. Nothing is downloaded. Splits, numbers of examples and metrics are the reference's: "train" is what
experts are chosen by and models are tuned on, "shots" are the examples; test questions are in neither. Where no test
file is given, or its answers are not public, the validation file is the test. Examples are the first ones of the
training file (OLMES has hand-picked ones, which its files do not say); mmlu and mmlu_pro have theirs in --dev or
--validation.
"""
import collections
import json
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from launch.arguments import Arguments  # noqa: E402

MMLU_SUBJECTS = {
    "biology": "college_biology high_school_biology",
    "business": "business_ethics management marketing",
    "chemistry": "college_chemistry high_school_chemistry",
    "computer science": "college_computer_science computer_security high_school_computer_science machine_learning",
    "culture": "human_sexuality sociology",
    "economics": "econometrics high_school_macroeconomics high_school_microeconomics",
    "engineering": "electrical_engineering",
    "geography": "high_school_geography",
    "health": "anatomy clinical_knowledge college_medicine human_aging medical_genetics nutrition professional_medicine "
              "virology",
    "history": "high_school_european_history high_school_us_history high_school_world_history prehistory",
    "law": "international_law jurisprudence professional_law",
    "math": "abstract_algebra college_mathematics elementary_mathematics high_school_mathematics high_school_statistics",
    "other": "global_facts miscellaneous professional_accounting",
    "philosophy": "formal_logic logical_fallacies moral_disputes moral_scenarios philosophy world_religions",
    "physics": "astronomy college_physics conceptual_physics high_school_physics",
    "politics": "high_school_government_and_politics public_relations security_studies us_foreign_policy",
    "psychology": "high_school_psychology professional_psychology",
}
CATEGORY_OF = {subject: category for category, subjects in MMLU_SUBJECTS.items() for subject in subjects.split()}


def asked(question: str, choices: list[str], gold: int) -> dict:
    return {"context": f"Question: {question.strip()}\nAnswer:", "choices": choices, "gold": gold}


def labelled(question: str, choices: dict, key: str) -> dict:
    return asked(question, list(choices["text"]), list(choices["label"]).index(key))


def written(context: str, answers: list[str]) -> dict:
    return {"context": context, "answers": list(dict.fromkeys(answers))}


def winogrande(r: dict) -> list[dict]:
    before, after = r["sentence"].split("_", 1)
    return [{"context": before.strip(), "choices": [r["option1"] + after, r["option2"] + after],
             "gold": int(r["answer"]) - 1}]


def coqa(r: dict) -> list[dict]:
    """Every turn, with the turns before it."""
    items, talk = [], r["story"]
    for question, answer in zip(r["questions"], r["answers"]["input_text"]):
        talk += f"\n\nQuestion: {question}\nAnswer:"
        items.append(written(talk, [answer]))
        talk += f" {answer}"
    return items


def mmlu(r: dict) -> list[dict]:
    return [{**asked(r["question"], list(r["choices"]), int(r["answer"])), "category": CATEGORY_OF[r["subject"]],
             "subject": r["subject"]}]


CHOICES = {"kind": "choices", "shots": 5}
TEXT = {"kind": "generation", "metric": "f1", "shots": 5, "max_new_tokens": 50, "stop": ["\n"]}
# Benchmark: its questions of one record, and its header.
BENCHMARKS = {
    "arc_easy": (lambda r: [labelled(r["question"], r["choices"], r["answerKey"])], {**CHOICES, "metric": "acc_per_char"}),
    "arc_challenge": (lambda r: [labelled(r["question"], r["choices"], r["answerKey"])], {**CHOICES, "metric": "acc_uncond"}),
    "boolq": (lambda r: [{"context": f"{r['passage']}\nQuestion: {r['question']}?\nAnswer:", "choices": ["yes", "no"],
                          "gold": 0 if r["answer"] else 1}], {**CHOICES, "metric": "acc_raw"}),
    "hellaswag": (lambda r: [{"context": f"{r['activity_label']}: {r['ctx']}", "choices": list(r["endings"]),
                              "gold": int(r["label"])}], {**CHOICES, "metric": "acc_per_char", "loss": "all"}),
    "csqa": (lambda r: [labelled(r["question"], r["choices"], r["answerKey"])], {**CHOICES, "metric": "acc_uncond"}),
    "openbookqa": (lambda r: [labelled(r["question_stem"], r["choices"], r["answerKey"])],
                   {**CHOICES, "metric": "acc_uncond"}),
    "piqa": (lambda r: [asked(r["goal"], [r["sol1"], r["sol2"]], int(r["label"]))], {**CHOICES, "metric": "acc_per_char"}),
    "socialiqa": (lambda r: [asked(f"{r['context']} {r['question']}", [r["answerA"], r["answerB"], r["answerC"]],
                                   int(r["label"]) - 1)], {**CHOICES, "metric": "acc_per_char"}),
    "winogrande": (winogrande, {**CHOICES, "metric": "acc_raw", "loss": "all"}),
    "squad": (lambda r: [written(f"{r['context']}\n\nQuestion: {r['question']}\nAnswer:", r["answers"]["text"])], TEXT),
    "naturalqs": (lambda r: [written(f"Question: {r['question']}\nAnswer:", r["answer"])], TEXT),
    "triviaqa": (lambda r: [written(f"Question: {r['question']}\nAnswer:",
                                    [r["answer"]["value"], *r["answer"]["aliases"]])], TEXT),
    "drop": (lambda r: [written(f"{r['passage']}\n\nQuestion: {r['question']}\nAnswer:", r["answers_spans"]["spans"])],
             {**TEXT, "max_new_tokens": 100}),
    "coqa": (coqa, {**TEXT, "shots": 0}),
    "gsm8k": (lambda r: [written(f"Question: {r['question']}\nAnswer:", [r["answer"].replace("#### ", "The answer is ")])],
              {**TEXT, "metric": "last_number", "shots": 8, "max_new_tokens": 512, "stop": ["\n\n", "Question:"]}),
    "mmlu": (mmlu, {**CHOICES, "metric": "acc_per_char", "not_averaged": ["other"]}),
    "mmlu_pro": (lambda r: [{**asked(r["question"], list(r["options"]), int(r["answer_index"])), "category": r["category"]}],
                 {**CHOICES, "metric": "acc_per_char", "not_averaged": ["other"]}),
}


def read(files: list[pathlib.Path]) -> list[dict]:
    records = []
    for file in files or []:
        if file.suffix == ".parquet":
            from pyarrow import parquet
            records += parquet.read_table(file).to_pylist()
        else:
            records += [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return records


def grouped(items: list[dict], key: str) -> list[list[dict]]:
    groups = collections.defaultdict(list)
    for item in items:
        groups[item[key]].append(item)
    return [groups[name] for name in sorted(groups)]


def split_mmlu(of: dict) -> dict[str, list[dict]]:
    """Per subject 60 % of the test file to train on, with the validation file; 40 % to test on."""
    splits = {"shots": of["dev"], "train": list(of["validation"]), "test": []}
    for items in grouped(of["test"], "subject"):
        random.Random(0).shuffle(items)
        cut = len(items) * 60 // 100
        splits["train"] += items[:cut]
        splits["test"] += items[cut:]
    return splits


def split_mmlu_pro(of: dict) -> dict[str, list[dict]]:
    """Per category 100 questions and 40 % of the others to train on; 60 % of the others to test on."""
    splits = {"shots": of["dev"] or of["validation"], "train": [], "test": []}
    for items in grouped(of["test"], "category"):
        random.Random(0).shuffle(items)
        first, others = items[:100], items[100:]
        cut = len(others) * 60 // 100
        splits["test"] += others[:cut]
        splits["train"] += first + others[cut:]
    return splits


def split_plain(of: dict, shots: int) -> dict[str, list[dict]]:
    test = of["test"] or of["validation"]
    train = of["train"] + (of["validation"] if of["test"] else [])
    return {"shots": of["dev"] or train[:shots], "train": train if of["dev"] else train[shots:], "test": test}


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("output", type=pathlib.Path)
    for split in ("train", "validation", "test", "dev"):
        parser.add_argument(f"--{split}", nargs="+", type=pathlib.Path, default=[])
    options = parser.parse_args()
    questions_of, header = BENCHMARKS[options.benchmark]
    of = {}
    for split in ("train", "validation", "test", "dev"):
        try:
            of[split] = [item for record in read(getattr(options, split)) for item in questions_of(record)]
        except (KeyError, ValueError, OSError) as error:
            sys.exit(f"public_tasks: --{split}: {type(error).__name__}: {error}: not the files of {options.benchmark}?")
    split = {"mmlu": split_mmlu, "mmlu_pro": split_mmlu_pro}.get(options.benchmark)
    splits = split(of) if split else split_plain(of, header["shots"])
    if not splits["test"] or len(splits["shots"]) < (1 if header["shots"] else 0):
        sys.exit("public_tasks: no test questions, or no examples: see --help for the files that are needed")
    if options.output.exists():
        sys.exit(f"public_tasks: {options.output} is there already")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with open(options.output, "w", encoding="utf-8") as file:
        file.write(json.dumps({"task": options.benchmark, **header}) + "\n")
        for name in ("shots", "train", "test"):
            for number, item in enumerate(splits[name]):
                item = {"id": f"{name}-{number}", **item, "split": name}
                subject = item.pop("subject", None)
                if subject:
                    item["id"] += f"-{subject}"
                file.write(json.dumps(item, ensure_ascii=False) + "\n")
    print(", ".join(f"{len(splits[name])} {name}" for name in splits), file=sys.stderr)


if __name__ == "__main__":
    main()
