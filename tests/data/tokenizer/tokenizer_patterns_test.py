"""Patterns of pre-tokenizers: what we accept cuts texts as the `tokenizers` package does, and what we refuse
is refused by name, with its place.

Compared are the pieces themselves, over real models' patterns, one pattern for each kind of part, every Unicode
code point in properties and classes, and patterns put together at random out of what the grammar has.

Usage: tokenizer_patterns_test.py SPLIT_PIECES
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import time

from tokenizers import Regex, pre_tokenizers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import check  # noqa: E402

RANDOM_PATTERNS = 10_000
CASE = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
REAL = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": CASE + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "cl100k as tiktoken has it": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"[:-1] +
                                 r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "qwen2": CASE + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen3.5": CASE + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+{CASE}?|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*{CASE}?"
             r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "deepseek": r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
                r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "deepseek, ideographs": "[一-龥\u3040-ゟ゠-ヿ]+",
    "digits from the right": r"\d{1,3}(?=(?:\d{3})*\b)"[:-3] + r"(?!\d))",
    "words with joiners": r"(\p{L}\x{200D}?)+|\p{N}|\s+|[^\s\p{L}]",
}
PARTS = [
    "", "|a", "a|", "(|a)", "()", "a*", "a?", "a{0}", "a*|[^a]+", "(?=a)", "(?=[A-Z])", r"\A.", r".\z", r".\Z", "^",
    "$", "^.", ".$", ".+", r"\.", "a+?b", "a++b", "a*+a", "a??b", "a?+a", "a{2}", "a{1,2}", "a{1,}", "a{1,2}?",
    "a{1,}?b", "a{01,02}", "(?:a|ab)(?:c|bcd)", "(?:a*b)*", "(?:a?b??)?", "(?:(?:a?)b|c+)+", "(?:a{0}b){2}", "(?:a+?)+", "(?:a+?)*b|a", "(?:a{1,}?)+", "(?:a|b*c){1,}", "(?!a).", "(?<=a)b", "(?<!a)b", "(?<=a|bc)d",
    r"(?<=\s)\S+", r"\x41", r"\x0A", r"\x{e9}", r"\x{65E5}", r"\x{000041}", r"\t|\n|\r|\f|\a|\e", r"\S+", r"\D+",
    "[a-]+", "[-a]+", "[^-a]+", r"[a\-z]+", r"[+\--]", r"[\d-]+", r"[a\]b]+", r"[\[a]+", "[a^]+", "[^^]+", "[.]",
    "[$^|(){}*+?]", "[#]", "[ ]", "[:alpha:]", "[.a.]", "[=a=]", "[a&b]+", r"[&\&]", r"[\x{41}-\x{45}]+",
    r"[\n\r\t\f\a\e]", "[日-龥]+", "(?i)B|h", "(?i:k)", "(?i:[k])+", "(?i:[a-z])+", "(?i:[^k])+", "(?i:[^a-z])+",
    r"(?i:\s+\d+)", "(?i:[’']s)", "(?i:s{2})", "(?i:s+)", "(?i:[st]+)", "(?i:a(?:b|C))", "(?i:s)x(?i:t)", "a}", "a]",
    "#a", "# a",
]
# What is refused, where, and what the message must name.
REFUSED = [
    ("(?i:[ -\u2019])", 5, "where case is ignored"),
    (r"[\p{L}&&[^\p{Han}]]+|\p{Han}+|\s+|.", 6, "intersection"),
    ("[a-z[0-9]]+|[^a-z[0-9]]+", 4, "class inside a class"), (r"\h+|\H+", 0, "hex digit"),
    ("a{,2}|[^a]+", 1, "none up to"), ("(?m:.+)", 0, "ends of lines"), (r"\H", 0, "hex digit"),
    ("[[:alpha:]]", 1, "POSIX"), ("[[a]]", 1, "class inside"), ("[&&]", 1, "intersection"),
    ("[+-&&a]", 3, "intersection"), (r"é\w+", 2, "of words"), (r"\W", 0, "outside words"), (r"[\w]", 1, "of words"),
    (r"a\b", 1, "edge of a word"), (r"\B", 0, "inside a word"), (r"[\b]", 1, "edge of a word"), (r"\v", 0, "U+000B"),
    (r"\V", 0, "PCRE2 only"), (r"\R", 0, "end of a line"), (r"\X", 0, "grapheme"), (r"\N", 0, "PCRE2"),
    (r"\O", 0, "any char"), (r"a\Kb", 1, "beginning of the match"), (r"\G.", 0, "search began"), (r"\y", 0, "grapheme"),
    (r"\Y", 0, "grapheme"), (r"\u65e5", 0, r"\x{..}"), (r"\xe9", 0, "number of a character"),
    (r"\x{110000}", 0, "number"), (r"\x{d800}", 0, "number"), (r"\x{}", 0, "number"), (r"\x", 0, "number"),
    (r"\x4", 0, "number"), (r"\x{41", 0, "number"), (r"\x{ 41 }", 0, "number"), (r"\o{101}", 0, r"\x{..}"),
    (r"\cA", 0, r"\x{..}"), (r"\C-a", 0, "control"), (r"\M-a", 0, "high bit"), (r"\0", 0, "matched"),
    (r"(a)\1", 3, "matched"), (r"\101", 0, "matched"), (r"\Qa\E", 0, "quotation"), (r"\E", 0, "quotation"),
    (r"\g<0>", 0, "call"), (r"(?<n>a)\k<n>", 0, "name"), (r"\k<n>", 0, "another group"), (r"\pL", 0, "property"),
    (r"\p{^L}", 0, "property"), (r"\p{Letter}", 0, "property"), (r"\p{l}", 0, "property"), (r"\p{ L }", 0, "property"),
    (r"\p{sc:Han}", 0, "property"), (r"\p{L&}", 0, "property"), (r"\p{L", 0, "property"), (r"\p", 0, "property"),
    (r"\P{Xan}", 0, "property"), (r"[\S]", 1, "complement"), (r"[^\P{L}]", 2, "complement"), (r"[\D]", 1, "complement"),
    (r"\j", 0, "without a meaning"), (r"\é", 0, "without a meaning"), ("\\", 0, "nothing behind"),
    ("[\\", 1, "nothing behind"), ("a{2}?", 1, "lazy"), ("a{1,2}+", 1, "possessive"), ("a{2}+", 1, "possessive"),
    ("a{2,1}", 1, "order"), ("a{65536}", 1, "65535"), ("a{", 1, "'{'"), ("a{x}", 1, "'{'"), ("{2}", 0, "'{'"),
    ("a{ 1,2 }", 1, "'{'"), ("a{1}{2}", 4, "'{'"), ("a**", 2, "quantifier"), ("a+*", 2, "quantifier"),
    ("*a", 0, "quantifier"), ("(*a)", 0, "verb"), ("(?=a)*", 5, "quantifier"), ("^*", 1, "quantifier"),
    ("a|?", 2, "quantifier"), ("(?P<n>a)", 0, "name"), ("(?'n'a)", 0, "name"), ("(?#x)a", 0, "comment"),
    ("(?x) a", 0, "comments"), ("(?s:.)", 0, "ends of lines"), ("(?m).", 0, "ends of lines"),
    ("a(?i)b|h", 1, "ignores case"), ("(?-i:B)", 0, "option"), ("(?a)", 0, "unknown"), ("(?>a+)b", 0, "first way"), ("(?:a)?+", 5, "gives nothing back"),
    ("(?:a*)*b", 6, "match nothing"), ("(?:a?b??){2}", 9, "match nothing"), ("(|a)+", 4, "match nothing"),
    ("(a|)+", 4, "match nothing"), ("((a?)?b{0}|c)*", 13, "match nothing"), ("((?=a)|b)+", 9, "match nothing"),
    ("(?:a|(?:b*|c)){1,}", 14, "match nothing"), (r"(^|$\A)*", 7, "match nothing"),
    ("(?<!(?<!))", 4, "look behind"), ("(?<=a+)", 5, "look behind"), ("(?<=^)", 4, "look behind"),
    ("(?<=)", 4, "look behind"), ("(?<!a||b)", 6, "look behind"), (r"(?<=\A)", 4, "look behind"), ("(a)++", 3, "gives nothing back"),
    ("(?~a)", 0, "without one"), ("(?(1)a|b)", 0, "condition"), ("(?|a|b)", 0, "same number"), ("(?{x})", 0, "unknown"),
    ("(*FAIL)", 0, "verb"), ("(?R)", 0, "unknown"), ("[]abc]", 1, "']'"), ("[^]abc]", 2, "']'"), ("[]", 1, "']'"),
    ("[a-c-e]", 4, "'-'"), (r"[\s-a]", 3, "'-'"), (r"[a-\s]", 3, "without a meaning"), ("[+--]", 3, "'-'"),
    ("[--/]", 1, "'-'"), ("[z-a]", 1, "before it begins"), ("[a", 0, "no ']'"), ("[a-", 0, "no ']'"),
    ("(a", 0, "no ')'"), ("a)", 1, "no '('"), ("(?i)ss", 5, "'ss'"), ("(?i:ST)", 5, "'st'"), ("(?i:(?:f)i)", 9, "'fi'"),
    ("(?i:f[l])", 5, "'fl'"), ("(?i:ß)", 4, "ASCII"), ("(?i:[aß])", 6, "ASCII"), (r"(?i:\p{Lu})", 4, "case"),
    (r"(?i:[\p{L}])", 5, "case"),
]
TEXTS = [
    "Hello world 42", "naïve 日本語 text", "aaa b9c\n0xFFz", "tab\there\n\nend",
    "don't DON'T we'LL it'\u017f 'S 'Ll 'ſ 12345 x_y ss ß ẞ SS ſt ﬆ ﬅ ﬀ ﬁ ﬂ fi FL ff K k \u212a İi\u0307",
    "aab,bba]c-d^e}x{y foo\tbaz\r\nqux\u00a0\u180e\u200d\u2028z [abc] a{2} '&&' a.b:c=d #a # a\n",
    " \t\n\r\n\v\f\x85\x07\x1b\x1c  x \n\n y\n",
    "क्षि नमस्ते e\u0301 \U0001F600\U0001F468\u200d\U0001F469 ｱ １２３ ٣٤ Ⅷ ²", "A\u200dB\u200dC", "", "\n", "a", "aaaa",
    "abcbcdabd",
]
os.environ["RUST_BACKTRACE"] = "0"  # of the package, where a pattern takes it too long


class Pieces:
    """The program under test: one answer for each request."""

    def __init__(self, executable: str):
        self.executable = executable

    def ask(self, requests: list[dict]) -> list[dict]:
        result = subprocess.run([self.executable], input="".join(json.dumps(r) + "\n" for r in requests),
                                capture_output=True, text=True, timeout=250, check=True)
        answers = [json.loads(line) for line in result.stdout.split("\n") if line]
        check(len(answers) == len(requests), f"{len(answers)} answers to {len(requests)} requests")
        return answers


def request(pattern: str, texts: list[str], behavior: str = "isolated", invert: bool = False) -> dict:
    return {"pattern": pattern, "behavior": behavior, "invert": invert, "texts": texts}


def expected(asked: dict) -> list[list[str]]:
    split = pre_tokenizers.Split(Regex(asked["pattern"]), asked["behavior"], asked["invert"])
    return [[piece for piece, _ in split.pre_tokenize_str(text)] for text in asked["texts"]]


def compare(asked: dict, answer: dict, pieces: list[list[str]] | None = None) -> None:
    check("pieces" in answer, f"{asked['pattern']}: {answer}")
    for text, found, right in zip(asked["texts"], answer["pieces"], pieces or expected(asked)):
        if found != right:
            at = next(i for i, (a, b) in enumerate(zip(found + [""], right + [""])) if a != b)
            raise AssertionError(f"{asked['pattern']!r} ({asked['behavior']}) cuts {text[:60]!r}: piece {at} is "
                                 f"{found[at:at + 3]}, expected {right[at:at + 3]}")


def accepts_what_is_alike(pieces: Pieces) -> str:
    asked = [request(p, TEXTS, *how) for p in [*REAL.values(), *PARTS]
             for how in (("isolated", False), ("removed", False), ("removed", True))]
    for one, answer in zip(asked, pieces.ask(asked)):
        compare(one, answer)
    return f"{len(asked)} patterns that are accepted"


def knows_every_character(pieces: Pieces) -> str:
    points = [*range(0xD800), *range(0xE000, 0x33480), *range(0xE0000, 0xE0200), *range(0x10FF00, 0x110000)]
    text = "".join(map(chr, points))
    spaced = " ".join(map(chr, points[:0x700]))
    header = (pathlib.Path(pieces.executable).parents[1] / "generated/data/unicode_properties.h").read_text()
    names = [line.split('"')[1] for line in header.splitlines() if line.startswith('    {"')]
    check(len(names) > 40, str(names))
    patterns = [rf"\p{{{name}}}+" for name in names]
    patterns += [r"\P{L}+", r"\P{Han}+", r"[^\p{Mn}a-z]+", r"\s+", r"\S+", r"\d+", r"\D+", r"[^\s\p{P}]+", ".+",
                 "(?i:[a-z])+", "(?i:[^k])+", "(?i:[^a-z’])+", "(?i:[kds])", "(?i)k|[s]", "(?i:x'S)"]
    asked = [request(pattern, [text, spaced]) for pattern in patterns]
    for one, answer in zip(asked, pieces.ask(asked)):
        compare(one, answer)
    return f"{len(patterns)} classes over every character"


def refuses_the_rest(pieces: Pieces) -> str:
    for (pattern, place, name), answer in zip(REFUSED, pieces.ask([request(p, ["a"]) for p, _, _ in REFUSED])):
        message = answer.get("refused", f"accepted: {answer}")
        check(f"at byte {place}, " in message and name in message.split(f"at byte {place}, ")[1],
              f"{pattern!r}, expected byte {place} and {name!r}: {message}")
    return f"{len(REFUSED)} that are refused by name"


def random_pattern(random_: random.Random, depth: int = 0) -> str:
    atoms = ["a", "b", "s", "T", "é", "日", " ", r"\n", ".", r"\s", r"\S", r"\d", r"\p{L}", r"\P{L}", r"\p{Lu}",
             "[abc]", "[^ab]", r"[\p{L}\d-]", r"[^\s\p{N}]", "[a-f日]", r"\x{200D}", "'", r"\.", "[st]", "[^s]"]
    quantifiers = ["", "", "", "", "*", "+", "?", "*?", "+?", "??", "*+", "++", "?+", "{2}", "{1,2}", "{0,2}?", "{1,}",
                   "{2,}?"]

    def atom() -> str:
        if depth < 2 and random_.random() < 0.3:
            kind = random_.choice(["(", "(?:", "(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!"])
            inside = random_pattern(random_, depth + 1)
            if kind.startswith("(?<"):
                inside = "|".join("".join(random_.choice(atoms) for _ in range(random_.choice([1, 2])))
                                  for _ in range(random_.choice([1, 2])))
            group = kind + inside + ")"
            if kind[2:3] in ("=", "!", "<"):
                return group
            # What repeats without an end repeats nothing that does: such patterns take longer than a test may.
            repeats = any(mark in inside for mark in ("*", "+", "?", ",}"))
            return group + random_.choice(["", "", "?", "??", "{2}", "{1,2}", *([] if repeats else ["*", "+", "+?"])])
        if random_.random() < 0.06:
            return random_.choice(["^", "$", r"\A", r"\z", r"\Z"])
        return random_.choice(atoms) + random_.choice(quantifiers)

    return "|".join("".join(atom() for _ in range(random_.choice([0, 1, 1, 2, 2, 3, 4])))
                    for _ in range(random_.choice([1, 1, 2, 3])))


def agrees_on_random_patterns(pieces: Pieces) -> str:
    random_ = random.Random(15)
    patterns = [random_pattern(random_) for _ in range(RANDOM_PATTERNS)]
    texts = ["".join(random_.choice("aabbsStT é日\n'.9\u200dß ") for _ in range(random_.randrange(1, 30)))
             for _ in range(12)]
    asked = [request(pattern, texts + TEXTS[4:8]) for pattern in patterns]
    compared = slow = 0
    for one, answer in zip(asked, pieces.ask(asked)):
        slow += "failed" in answer  # takes billions of steps, and says so
        if "refused" in answer or "failed" in answer:
            continue
        try:
            right = expected(one)
        except BaseException as error:  # noqa: BLE001 - what the package does not take, no tokenizer has
            check(type(error) is Exception or type(error).__name__ == "PanicException", repr(error))
            continue
        compare(one, answer, right)
        compared += 1
    check(compared > RANDOM_PATTERNS / 2, f"only {compared} of {RANDOM_PATTERNS} were accepted")
    check(slow <= 2, f"{slow} patterns took too many steps")
    return f"{compared} random patterns"


def long_words_are_not_lost(pieces: Pieces) -> str:
    for letters in (1_500, 200_000, 3_000_000):
        text = "a\u200db" * (letters // 2) + " end"
        patterns = [REAL["words with joiners"], r"(?:(?:\p{L}|\x{200D})+?)+(?= )| ?\p{L}+"]
        asked = [request(pattern, [text]) for pattern in patterns]
        for one, answer in zip(asked, pieces.ask(asked)):
            check("failed" not in answer, f"{one['pattern']}, {letters} letters: {answer.get('failed')}")
            check(answer["pieces"][0][0] == text[:-4], f"{one['pattern']}, {letters} letters: cut within the word")
    return "words of 3,000,000 letters"


CASES = [accepts_what_is_alike, knows_every_character, refuses_the_rest, agrees_on_random_patterns,
         long_words_are_not_lost]


def main() -> None:
    pieces = Pieces(sys.argv[1])
    failures = 0
    for case in CASES:
        try:
            start = time.monotonic()
            print(f"ok: {case(pieces)}, {time.monotonic() - start:.1f} s", flush=True)
        except Exception as failure:  # noqa: BLE001 - the other cases run too
            failures += 1
            print(f"FAILED {case.__name__}: {failure!r}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
