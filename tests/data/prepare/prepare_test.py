"""emo prepare from outside: inputs, labels, threads, and everything that can be wrong with them."""
import gzip
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import Program, check, write_tokenizer  # noqa: E402


def main() -> None:
    with Program(sys.argv[1]) as emo:
        folder = emo.folder
        tokenizer = folder / "tokenizer.json"
        write_tokenizer(tokenizer)
        counter = iter(range(1000))

        def prepare(*inputs, expect=0, **options):
            output = folder / f"out{next(counter)}"
            flags = [item for key, value in options.items() for item in
                     ([f"--{key}"] if value is True else [f"--{key}", value])]
            result = emo.run("prepare", "--tokenizer", tokenizer, "--output", output, "--json", *flags, *inputs,
                             expect=expect, timeout=500)
            return (output, json.loads(result.stdout)) if expect == 0 else result.stderr

        lines = [json.dumps({"text": f"document {i} " * (i % 50 + 1), "source": "even" if i % 2 else "odd",
                             "id": f"d{i}"}) for i in range(3000)]
        plain = folder / "plain.jsonl"
        plain.write_text("\n".join(lines) + "\n")
        with gzip.open(folder / "zipped.jsonl.gz", "wt") as file:
            file.write("\n".join(lines))  # no newline at the end
        one, summary = prepare(plain, threads=1)
        check(summary["documents"] == 3000 and set(summary["sources"]) == {"even", "odd"}, str(summary))
        for other, _ in (prepare(plain, threads=4), prepare(folder / "zipped.jsonl.gz", threads=3)):
            for name in ("tokens-00000.npy", "tokens-00000.index", "tokens-00000.ids", "dataset.json"):
                check((one / name).read_bytes() == (other / name).read_bytes(), f"{name} depends on threads or gzip")
        many, _ = prepare(plain, **{"shard-tokens": 5000})
        names = sorted(path.name for path in many.glob("*.npy"))
        check(len(names) > 3, str(names))
        check(b"".join((many / name).read_bytes() for name in names) == (one / "tokens-00000.npy").read_bytes(),
              "shards are not the same tokens")

        texts = folder / "texts"
        (texts / "poems").mkdir(parents=True)
        (texts / "poems/a.txt").write_text("a rose\n")
        (texts / "poems/b.txt").write_text("is a rose\n")
        _, summary = prepare(texts)
        check(summary["sources"]["poems"]["documents"] == 2, str(summary))
        _, summary = prepare(texts, source="verse")
        check(list(summary["sources"]) == ["verse"], str(summary))
        _, summary = prepare(plain, field="id")
        check(summary["bytes"] == sum(len(f"d{i}") for i in range(3000)), "--field")

        shown = emo.run("data", "show", one, "--batch", 2, "--sequence-length", 64).stdout
        for word in ("row 0, sequence 8", "document (8, 0)", "tokens [0, ", "even", "odd", " d"):
            check(word in shown, f"{word!r} is not in\n{shown}")

        # Bad documents are counted, or an error with --strict; each names file and line.
        bad = folder / "bad.jsonl"
        bad.write_bytes(b'{"text": "good"}\n{"text": broken}\n{"other": 1}\n{"text": 5}\n{"text": "\xff\xfe"}\n'
                        b'{"text": "\\ud800"}\n[1]\n\n{"text": "also good"}\n')
        _, summary = prepare(bad)
        check(summary["documents"] == 2 and summary["skipped"] == 6, str(summary))
        for number, what in [(2, "JSON"), (3, "'text' is missing"), (4, "expected a string"), (5, "invalid UTF-8")]:
            check(any(f"bad.jsonl:{number}: " in w and what in w for w in summary["warnings"]), f"{number}: {summary}")
        check("bad.jsonl:2" in prepare(bad, expect=65, strict=True), "--strict")

        (folder / "empty.jsonl").write_text("")
        check("is empty" in prepare(folder / "empty.jsonl", expect=65), "empty file")
        (folder / "useless.jsonl").write_text('{"x": 1}\n')
        check("no usable document" in prepare(folder / "useless.jsonl", expect=65), "no document")
        check("nowhere" in prepare(folder / "nowhere", expect=66), "missing input")
        (folder / "torn.jsonl.gz").write_bytes((folder / "zipped.jsonl.gz").read_bytes()[:-500])
        check("gzip" in prepare(folder / "torn.jsonl.gz", expect=65), "torn gzip")
        (folder / "none").mkdir()
        check("holds no file" in prepare(folder / "none", expect=66), "empty folder")

        # A document of 50 MB that is one word, one of one character, one without any.
        sizes = folder / "sizes.jsonl"
        with open(sizes, "w") as file:
            for text in ("ab" * 25_000_000, "x", "", "word " * 1_000_000):
                file.write(json.dumps({"text": text}) + "\n")
        output, summary = prepare(sizes, threads=2)
        check(summary["documents"] == 4 and summary["bytes"] == 55_000_001, str(summary))

        # Nothing is overwritten.
        result = emo.run("prepare", "--tokenizer", tokenizer, "--output", one, plain, expect=73)
        check("not empty" in result.stderr, result.stderr)

        # Parts missing from the tokenizer.
        full = json.loads(tokenizer.read_text())
        for part in ("model", "pre_tokenizer"):
            tokenizer.write_text(json.dumps({key: value for key, value in full.items() if key != part}))
            check(f"no '{part}'" in prepare(plain, expect=65), part)
        tokenizer.write_text("{")
        check("not valid JSON" in prepare(plain, expect=65), "broken tokenizer")
        full["added_tokens"] = []
        del full["model"]["vocab"]["<|endoftext|>"]
        tokenizer.write_text(json.dumps(full))
        check("--eos" in prepare(plain, expect=64), "no end token")
    print("prepare does what it says")


if __name__ == "__main__":
    main()
