"""Seven task sets from held-out documents of the quick start (launch/texts.py), in the format of docs/tasks.md.

Usage: tasks.py TEXT_FOLDER OUTPUT_FOLDER
Example: /usr/bin/python3 launch/tasks.py runs/quickstart/data runs/tasks

Questions of the split "test" come from TEXT_FOLDER/test.jsonl; "shots" and "train" (to choose experts by,
and to tune on) from validation.jsonl, so no document of the training text is used. Every draw is a hash
of what is drawn: the same texts give the same questions. Needs Python's standard library only.
"""
import collections
import json
import pathlib
import random
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from launch.arguments import Arguments  # noqa: E402

QUESTIONS = 600  # at most, of each split
SHOTS = 8
CHOICES = 4


def paragraphs(text: str, separator: str, shortest: int, longest: int) -> list[str]:
    blocks = (" ".join(block.split()) for block in text.split(separator))
    return [block[:longest].rsplit(" ", 1)[0] if len(block) > longest else block
            for block in blocks if len(block) >= shortest]


def question(draw: random.Random, context: str, right: str, wrong: list[str], category: str, identity: str) -> dict:
    """Choices in a drawn order; `wrong` may hold more than are needed."""
    others = sorted({w for w in wrong if w != right})
    if len(others) < CHOICES - 1:
        return {}
    choices = draw.sample(others, CHOICES - 1) + [right]
    draw.shuffle(choices)
    return {"id": identity, "category": category, "context": context, "choices": choices, "gold": choices.index(right)}


class Texts:
    """The documents of one split."""
    def __init__(self, path: pathlib.Path):
        self.documents = collections.defaultdict(list)
        for line in path.read_text(encoding="utf-8").splitlines():
            document = json.loads(line)
            self.documents[document["source"]].append((document["id"], document["text"]))

    def of(self, *sources: str):
        for source in sources:
            for identity, text in self.documents[source]:
                yield source, identity, text


def next_passage(texts: Texts):
    """Which of four kinds of text goes on like this?"""
    passages = []
    for source, identity, text in texts.of(*texts.documents):
        for start in range(0, len(text) - 400, 400):
            words = text[start:start + 400]
            cut = words.find(" ", 200)
            if cut > 0 and len(words) - cut > 60:
                passages.append((source, f"{identity}@{start}", words[:cut], words[cut + 1:cut + 121]))
    by_source = collections.defaultdict(list)
    for source, _, _, after in passages:
        by_source[source].append(after)
    for source, identity, before, after in passages:
        draw = random.Random(identity)
        others = draw.sample(sorted(set(by_source) - {source}), CHOICES - 1)
        yield question(draw, before, after, [draw.choice(by_source[other]) for other in others], source, identity)


def word_senses(texts: Texts):
    """A word, and which of four glosses it has."""
    entries = [(f"{identity}:{line.split(':')[0]}", *line.split(": ", 1))
               for _, identity, text in texts.of("word senses") for line in text.splitlines() if ": " in line]
    glosses = [gloss for _, _, gloss in entries]
    for identity, words, gloss in entries:
        draw = random.Random(identity)
        yield question(draw, words + ":", gloss, draw.sample(glosses, 8), "word senses", identity)


def headwords(texts: Texts):
    """A definition, and which of four words it belongs to: of the dictionary, and of WordNet's single words."""
    entries = []
    for _, identity, text in texts.of("dictionary"):
        for match in re.finditer(r"^([A-Z][a-z]{3,}) \\[^\n]*\n(.*?)(?=\n\n|\Z)", text, flags=re.S | re.M):
            entries.append(("dictionary", f"{identity}:{match[1]}", match[1], " ".join(match[2].split())[:200]))
    for _, identity, text in texts.of("word senses"):
        for line in text.splitlines():
            word, _, gloss = line.partition(": ")
            if word.isalpha():
                entries.append(("word senses", f"{identity}:{word}", word.capitalize(), gloss.split(";")[0]))
    words = [word for _, _, word, _ in entries]
    for source, identity, word, definition in entries:
        if len(definition) > 30 and word.lower() not in definition.lower():
            draw = random.Random(identity)
            yield question(draw, f"Definition: {definition}\nWord:", word, draw.sample(words, 8), source, identity)


def prose_cloze(texts: Texts):
    """The next word of essays and scripture, against other words of the same document."""
    for source, identity, text in texts.of("essays", "scripture"):
        words = text.split()
        vocabulary = sorted({w for w in words if len(w) > 4 and w.isalpha()})
        for at in range(40, len(words), 12):
            if words[at] in vocabulary:
                draw = random.Random(f"{identity}@{at}")
                wrong = draw.sample(vocabulary, min(8, len(vocabulary)))
                yield question(draw, " ".join(words[at - 40:at]), words[at], wrong, source, f"{identity}@{at}")


def verses(texts: Texts):
    """A verse, and which of four verses comes next; half a verse, and which of four halves ends it."""
    chapters = [(identity, text.splitlines()) for _, identity, text in texts.of("scripture")]
    everything = [verse for _, lines in chapters for verse in lines]
    halves = [re.split(r"(?<=[:;]) ", verse, maxsplit=1) for verse in everything]
    endings = [half[1] for half in halves if len(half) == 2]
    for identity, lines in chapters:
        for number, (verse, after) in enumerate(zip(lines, lines[1:])):
            draw = random.Random(f"{identity}:{number}")
            yield question(draw, verse + "\n", after, draw.sample(everything, 8), "next verse", f"{identity}:{number}")
            half = re.split(r"(?<=[:;]) ", after, maxsplit=1)
            if len(half) == 2:
                yield question(draw, f"{verse}\n{half[0]} ", half[1], draw.sample(endings, 8), "second half",
                               f"{identity}:{number}+")


def code_lines(texts: Texts):
    """Eight lines of Python or Go, and which of four lines comes next."""
    for source in ("python", "go"):
        files = [(identity, [line for line in text.splitlines() if line.strip()])
                 for _, identity, text in texts.of(source)]
        everything = sorted({line for _, lines in files for line in lines if len(line.strip()) > 12})
        for identity, lines in files:
            for at in range(8, len(lines), 4):
                if len(lines[at].strip()) > 12:
                    draw = random.Random(f"{identity}@{at}")
                    yield question(draw, "\n".join(lines[at - 8:at]) + "\n", lines[at], draw.sample(everything, 8),
                                   source, f"{identity}@{at}")


def manual_pages(texts: Texts):
    """A paragraph of a French or German manual page, and the next paragraph of the same page."""
    for source in ("french manual", "german manual"):
        pages = [(identity, paragraphs(text, "\n", 60, 160)) for _, identity, text in texts.of(source)]
        everything = [paragraph for _, page in pages for paragraph in page]
        for identity, page in pages:
            for number, (paragraph, after) in enumerate(zip(page, page[1:])):
                draw = random.Random(f"{identity}:{number}")
                yield question(draw, paragraph + "\n", after, draw.sample(everything, 8), source,
                               f"{identity}:{number}")


# Task, its questions, and what its header says beside its name.
TASKS = {
    "next_passage": (next_passage, {"metric": "acc_uncond", "unconditional": "\n"}),
    "word_senses": (word_senses, {"metric": "acc_uncond", "unconditional": ":"}),
    "headwords": (headwords, {"metric": "acc_uncond", "shots": 4, "unconditional": "Word:"}),
    "prose_cloze": (prose_cloze, {"metric": "acc_uncond", "unconditional": "the"}),
    "verses": (verses, {"metric": "acc_uncond", "unconditional": "\n", "separator": "", "between": "\n\n"}),
    "code_lines": (code_lines, {"metric": "acc_uncond", "unconditional": "\n", "separator": "", "between": "\n\n"}),
    "manual_pages": (manual_pages, {"metric": "acc_uncond", "unconditional": "\n", "separator": "", "between": "\n\n"}),
}


def drawn(questions, most: int) -> list[dict]:
    """At most so many, the same number of each category as far as they go."""
    by_category = collections.defaultdict(list)
    for item in questions:
        if item:
            by_category[item["category"]].append(item)
    for category, items in by_category.items():
        random.Random(category).shuffle(items)
    chosen = []
    while len(chosen) < most and any(by_category.values()):
        for items in by_category.values():
            if items and len(chosen) < most:
                chosen.append(items.pop())
    return chosen


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("source", type=pathlib.Path, help="folder with test.jsonl and validation.jsonl of texts.py")
    parser.add_argument("output", type=pathlib.Path, help="folder to write the task files into")
    options = parser.parse_args()
    source, output = options.source, options.output
    output.mkdir(parents=True, exist_ok=True)
    held_out, validation = Texts(source / "test.jsonl"), Texts(source / "validation.jsonl")
    for name, (questions_of, header) in TASKS.items():
        test = [dict(item, split="test") for item in drawn(questions_of(held_out), QUESTIONS)]
        others = drawn(questions_of(validation), QUESTIONS + SHOTS * 8)
        used: collections.Counter = collections.Counter()
        for item in others:
            used[item["category"]] += 1
            item["split"] = "shots" if used[item["category"]] <= SHOTS else "train"
        with open(output / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for line in [{"task": name, "kind": "choices", **header}, *test, *others]:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(f"{name:16} {len(test):5} test, {sum(i['split'] == 'train' for i in others):5} train", file=sys.stderr)


if __name__ == "__main__":
    main()
