"""Our tokenizer against the `tokenizers` package, token by token.

Text: Python's standard library (several MB, in many scripts through its tests and codecs), the quick
start's documents where they are, every Unicode code point in several contexts, and odd whitespace.
Patterns: GPT-2's, cl100k's, dolma2's (the same as an inverted, removing Split), a sequence with digits.
"""
import json
import pathlib
import sys
import sysconfig

import numpy
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import ROOT, Program, check  # noqa: E402

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LEAST_BYTES = 5_000_000


def byte_level(use_regex: bool):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def split(pattern: str, behavior: str, invert: bool):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior, invert), byte_level(False)])


PRE_TOKENIZERS = {
    "gpt2": byte_level(True),
    "cl100k": split(CL100K, "isolated", False),
    "dolma2": split(CL100K, "removed", True),
    "digits": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\d"), "isolated", False), byte_level(True)]),
}


def real_texts() -> list[str]:
    texts = []
    for path in sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))[:1200]:
        if "site-packages" not in str(path):
            texts.append(path.read_text(encoding="utf-8", errors="ignore"))
    for path in sorted(ROOT.glob("runs/*/data/test.jsonl"))[:1]:
        texts += [json.loads(line)["text"] for line in open(path, encoding="utf-8")]
    return [text for text in texts if text]


def unicode_texts() -> list[str]:
    texts = []
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for first in range(0, len(points), 256):
        texts.append("".join(f"a{chr(c)}b {chr(c)} 1{chr(c)}{chr(c)}'s" for c in points[first:first + 256]))
    return texts


def odd_texts() -> list[str]:
    spaces = [" ", "\t", "\n", "\r", "\r\n", "\v", "\f", "\x85", "\xa0", "\u1680", "\u180e", "\u2000", "\u200b",
              "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\x1c", "\x1f"]
    texts = [a + b + c + "x" + c + b + a for a in spaces for b in spaces for c in spaces]
    texts += ["don't DON'T we'LL it'\u017f 'S 'Ll", " " * 1000 + "x", "\n" * 999, "x" * 100_000, "1234567890" * 50,
              "ab" * 70_000, "<|endoftext|>", "a<|endoftext|> <|endoftext|><|endoftext|>b", "<|endoftext", "a"]
    return texts


def main() -> None:
    texts = real_texts()
    total = sum(len(text.encode()) for text in texts)
    check(total >= LEAST_BYTES, f"only {total} bytes of real text")
    texts += unicode_texts() + odd_texts()
    with Program(sys.argv[1]) as emo:
        documents = emo.folder / "documents.jsonl"
        documents.write_text("".join(json.dumps({"text": text, "source": "x"}) + "\n" for text in texts))
        compared = 0
        for name, pre_tokenizer in PRE_TOKENIZERS.items():
            tokenizer = Tokenizer(models.BPE(ignore_merges=name == "cl100k"))
            tokenizer.pre_tokenizer = pre_tokenizer
            tokenizer.train_from_iterator(texts[::20], trainers.BpeTrainer(
                vocab_size=6000, special_tokens=["<|endoftext|>"], show_progress=False,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
            path = emo.folder / f"{name}.json"
            tokenizer.save(str(path))
            emo.run("prepare", "--tokenizer", path, "--output", emo.folder / name, "--strict", documents, timeout=600)
            ours = numpy.fromfile(emo.folder / name / "tokens-00000.npy", dtype=numpy.uint16)
            index = numpy.fromfile(emo.folder / name / "tokens-00000.index", dtype=numpy.uint64).reshape(-1, 3)
            check(len(index) == len(texts), f"{name}: {len(index)} documents of {len(texts)}")
            eos = tokenizer.token_to_id("<|endoftext|>")
            begin = 0
            for text, encoding, end in zip(texts, tokenizer.encode_batch(texts, add_special_tokens=False), index[:, 0]):
                expected = encoding.ids + [eos]
                found = ours[begin:int(end)].tolist()
                if found != expected:
                    at = next(i for i, (a, b) in enumerate(zip(found + [-1], expected + [-1])) if a != b)
                    raise AssertionError(f"{name}: token {at} of {text[:80]!r}...: {found[at:at + 5]}, expected "
                                         f"{expected[at:at + 5]} ({tokenizer.decode(expected[max(0, at - 3):at + 3])!r})")
                compared += len(expected)
                begin = int(end)
    print(f"{compared} tokens of {len(PRE_TOKENIZERS)} tokenizers are those of the tokenizers package, "
          f"{total / 1e6:.1f} MB of real text each")


if __name__ == "__main__":
    main()
