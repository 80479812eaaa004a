"""emo prepare from outside: inputs, labels, threads, and everything that can be wrong with them."""
import gzip
import itertools
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import Program, check, once, run_cases, write_tokenizer  # noqa: E402


COUNTER = itertools.count()


@once
def tokenizer(emo: Program) -> pathlib.Path:
    write_tokenizer(emo.folder / "tokenizer.json")
    return emo.folder / "tokenizer.json"


def prepare(emo: Program, *inputs, expect=0, by: pathlib.Path | None = None, **options):
    """The folder and the summary, or what standard error says; in a new folder each time."""
    output = emo.folder / f"out{next(COUNTER)}"
    flags = [item for key, value in options.items() for item in
             ([f"--{key}"] if value is True else [f"--{key}", value])]
    result = emo.run("prepare", "--tokenizer", by or tokenizer(emo), "--output", output, "--json", *flags, *inputs,
                     expect=expect, timeout=500)
    return (output, json.loads(result.stdout)) if expect == 0 else result.stderr


@once
def plain(emo: Program) -> pathlib.Path:
    """3000 documents of two sources."""
    lines = [json.dumps({"text": f"document {i} " * (i % 50 + 1), "source": "even" if i % 2 else "odd",
                         "id": f"d{i}"}) for i in range(3000)]
    (emo.folder / "plain.jsonl").write_text("\n".join(lines) + "\n")
    return emo.folder / "plain.jsonl"


@once
def zipped(emo: Program) -> pathlib.Path:
    with gzip.open(emo.folder / "zipped.jsonl.gz", "wt") as file:
        file.write(plain(emo).read_text().rstrip("\n"))  # no newline at the end
    return emo.folder / "zipped.jsonl.gz"


@once
def one(emo: Program) -> tuple[pathlib.Path, dict]:
    return prepare(emo, plain(emo), threads=1)


def test_documents_and_sources_are_counted(emo):
    _, summary = one(emo)
    check(summary["documents"] == 3000 and set(summary["sources"]) == {"even", "odd"}, str(summary))


def test_ids_may_be_left_out(emo):
    """Then documents are known by shard and number, here and where experts are ranked."""
    without, _ = prepare(emo, plain(emo), **{"no-ids": True})
    check(not list(without.glob("*.ids")), "ids were written")
    for name in ("tokens-00000.npy", "tokens-00000.index", "dataset.json"):
        check((one(emo)[0] / name).read_bytes() == (without / name).read_bytes(), f"{name} depends on ids")
    show = ["--batch", 3, "--sequence-length", 64, "--order", "sequential"]
    named, numbered = (emo.run("data", "show", folder, *show).stdout for folder in (one(emo)[0], without))
    check("d17" in named and "tokens-00000:17" in numbered and numbered.count("tokens-00000:") == named.count("  document ("),
          f"{named}\n{numbered}")


def test_a_check_finds_bytes_that_changed_since(emo):
    folder, summary = prepare(emo, plain(emo), **{"shard-tokens": 20_000})
    report = emo.json("data", "check", folder, "--all", "--sequence-length", 64)
    check(report["files"] == len(list(folder.glob("*.npy"))) > 1 and report["odd"] == [], f"{report}")
    check(report["tokens"] == summary["tokens"], f"{report}")
    check(sum(source["tokens"] for source in report["sources"].values()) == summary["tokens"], f"{report}")
    check(abs(report["tokens_per_document"] - summary["tokens"] / 3000) < 1e-9, f"{report}")
    damaged = folder / "tokens-00001.npy"
    data = bytearray(damaged.read_bytes())
    data[100], data[102] = data[102] ^ 1, data[100]
    damaged.write_bytes(bytes(data))
    check(emo.run("data", "check", folder).returncode == 0, "a quick look read everything")
    found = emo.run("data", "check", folder, "--all", expect=1).stdout
    check("tokens-00001.npy: its SHA-256" in found and found.count("SHA-256") == 1, found)


def test_threads_and_gzip_change_nothing(emo):
    for other, _ in (prepare(emo, plain(emo), threads=4), prepare(emo, zipped(emo), threads=3)):
        for name in ("tokens-00000.npy", "tokens-00000.index", "tokens-00000.ids", "dataset.json"):
            check((one(emo)[0] / name).read_bytes() == (other / name).read_bytes(), f"{name} depends on threads or gzip")


def test_shards_are_the_same_tokens(emo):
    many, _ = prepare(emo, plain(emo), **{"shard-tokens": 5000})
    names = sorted(path.name for path in many.glob("*.npy"))
    check(len(names) > 3, str(names))
    check(b"".join((many / name).read_bytes() for name in names) == (one(emo)[0] / "tokens-00000.npy").read_bytes(),
          "shards are not the same tokens")


def test_labels(emo):
    texts = emo.folder / "texts"
    (texts / "poems").mkdir(parents=True)
    (texts / "poems/a.txt").write_text("a rose\n")
    (texts / "poems/b.txt").write_text("is a rose\n")
    _, summary = prepare(emo, texts)
    check(summary["sources"]["poems"]["documents"] == 2, str(summary))
    _, summary = prepare(emo, texts, source="verse")
    check(list(summary["sources"]) == ["verse"], str(summary))


def test_another_field(emo):
    _, summary = prepare(emo, plain(emo), field="id")
    check(summary["bytes"] == sum(len(f"d{i}") for i in range(3000)), "--field")


def test_data_show(emo):
    shown = emo.run("data", "show", one(emo)[0], "--batch", 2, "--batch-size", 40, "--sequence-length", 64).stdout
    for word in ("row 0, sequence 80", "document (80, 0)", "tokens [0, ", "even", "odd", " d"):
        check(word in shown, f"{word!r} is not in\n{shown}")


def test_bad_documents_are_counted_and_named(emo):
    """Or an error with --strict; each names file and line."""
    bad = emo.folder / "bad.jsonl"
    bad.write_bytes(b'{"text": "good"}\n{"text": broken}\n{"other": 1}\n{"text": 5}\n{"text": "\xff\xfe"}\n'
                    b'{"text": "\\ud800"}\n[1]\n\n{"text": "also good"}\n')
    _, summary = prepare(emo, bad)
    check(summary["documents"] == 2 and summary["skipped"] == 6, str(summary))
    for number, what in [(2, "JSON"), (3, "'text' is missing"), (4, "expected a string"), (5, "invalid UTF-8")]:
        check(any(f"bad.jsonl:{number}: " in w and what in w for w in summary["warnings"]), f"{number}: {summary}")
    check("bad.jsonl:2" in prepare(emo, bad, expect=65, strict=True), "--strict")


def test_inputs_without_documents(emo):
    folder = emo.folder
    (folder / "empty.jsonl").write_text("")
    check("is empty" in prepare(emo, folder / "empty.jsonl", expect=65), "empty file")
    (folder / "useless.jsonl").write_text('{"x": 1}\n')
    check("no usable document" in prepare(emo, folder / "useless.jsonl", expect=65), "no document")
    check("nowhere" in prepare(emo, folder / "nowhere", expect=66), "missing input")
    (folder / "torn.jsonl.gz").write_bytes(zipped(emo).read_bytes()[:-500])
    check("gzip" in prepare(emo, folder / "torn.jsonl.gz", expect=65), "torn gzip")
    (folder / "none").mkdir()
    check("holds no file" in prepare(emo, folder / "none", expect=66), "empty folder")


def test_documents_of_all_sizes(emo):
    """One of 50 MB that is one word, one of one character, one without any."""
    sizes = emo.folder / "sizes.jsonl"
    with open(sizes, "w") as file:
        for text in ("ab" * 25_000_000, "x", "", "word " * 1_000_000):
            file.write(json.dumps({"text": text}) + "\n")
    _, summary = prepare(emo, sizes, threads=2)
    check(summary["documents"] == 4 and summary["bytes"] == 55_000_001, str(summary))


def with_pattern(emo: Program, pattern: str) -> pathlib.Path:
    changed = json.loads(tokenizer(emo).read_text())
    changed["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}
    path = emo.folder / f"pattern{next(COUNTER)}.json"
    path.write_text(json.dumps(changed))
    return path


def test_what_stands_deep_in_a_line_is_read(emo):
    deep = emo.folder / "deep.jsonl"
    deep.write_text('{"text": "a", "meta": ' + "[" * 5000 + "]" * 5000 + '}\n{"text": "b"}\n')
    _, summary = prepare(emo, deep)
    check(summary["documents"] == 2 and summary["skipped"] == 0, str(summary))


def test_no_document_is_lost_to_a_limit(emo):
    """Long words under a pattern that remembers every letter are read; a word that takes too many steps is an error
    that names it."""
    long = emo.folder / "long.jsonl"
    long.write_text("".join(json.dumps({"text": "x" * n}) + "\n" for n in (1_500, 100_000, 5_000_000)))
    _, summary = prepare(emo, long, by=with_pattern(emo, r"(\p{L}\x{200D}?)+|\s+|."))
    check(summary["documents"] == 3 and summary["skipped"] == 0, str(summary))
    slow = emo.folder / "slow.jsonl"
    slow.write_text(json.dumps({"text": "b"}) + "\n" + json.dumps({"text": "b" + "a" * 100, "id": "slow"}) + "\n")
    message = prepare(emo, slow, by=with_pattern(emo, "(?:a|aa)+c|."), expect=65)
    check("slow.jsonl:2" in message and "'slow'" in message and "at byte 1" in message, message)


def test_a_pattern_that_is_refused(emo):
    message = prepare(emo, plain(emo), by=with_pattern(emo, r"[\p{L}&&[^\p{Han}]]+|."), expect=65)
    check("at byte 6, '&&'" in message, message)


def test_nothing_is_overwritten(emo):
    result = emo.run("prepare", "--tokenizer", tokenizer(emo), "--output", one(emo)[0], plain(emo), expect=73)
    check("not empty" in result.stderr, result.stderr)


def test_parts_missing_from_the_tokenizer(emo):
    broken = emo.folder / "broken.json"
    full = json.loads(tokenizer(emo).read_text())
    for part in ("model", "pre_tokenizer"):
        broken.write_text(json.dumps({key: value for key, value in full.items() if key != part}))
        check(f"no '{part}'" in prepare(emo, plain(emo), by=broken, expect=65), part)
    broken.write_text("{")
    check("not valid JSON" in prepare(emo, plain(emo), by=broken, expect=65), "broken tokenizer")
    full["added_tokens"] = []
    del full["model"]["vocab"]["<|endoftext|>"]
    broken.write_text(json.dumps(full))
    check("--eos" in prepare(emo, plain(emo), by=broken, expect=64), "no end token")


if __name__ == "__main__":
    run_cases(globals())
