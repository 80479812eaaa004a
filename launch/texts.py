"""Real text of distinct domains: fixed Debian packages become JSON lines.

Usage: texts.py OUTPUT_FOLDER [quickstart|retention]
Example: /usr/bin/python3 launch/texts.py runs/texts

Packages are downloaded and unpacked into OUTPUT_FOLDER/packages, never installed. Writes train.jsonl,
validation.jsonl and test.jsonl with {"text", "source", "id"}, split by a hash of the documents' ids.
  quickstart (default)  8 domains of about 2.5 MB, documents of at most 8000 characters
  retention             15 domains of 5 million tokens or more (4096 kinds), documents of at most 1500
                        characters, for launch/experiment.sh
The same packages give the same files. Needs nothing but Python's standard library and apt.
"""
import gzip
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import typing

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from launch.arguments import Arguments  # noqa: E402

SHORTEST_DOCUMENT = 200


def provide_package_lists(package: str) -> None:
    """Runs apt-get update where apt does not know the package, as in a container without lists."""
    known = subprocess.run(["apt-get", "download", "--print-uris", package], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
    if known.returncode != 0:
        subprocess.run([*([] if os.geteuid() == 0 else ["sudo"]), "apt-get", "update", "-qq"], check=True)


def unpack(package: str, packages: pathlib.Path) -> pathlib.Path:
    """Downloads a package into `packages` and unpacks it; answers the folder."""
    folder = packages / package
    if not (folder / "complete").exists():
        subprocess.run(["apt-get", "download", "-qq", package], cwd=packages, check=True,
                       stderr=subprocess.DEVNULL)
        archive = next(packages.glob(package + "_*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
        archive.unlink()
        (folder / "complete").touch()
    return folder


def read_text(path: pathlib.Path) -> str:
    data = gzip.decompress(path.read_bytes()) if path.suffix in (".gz", ".dz") else path.read_bytes()
    return data.decode("utf-8", errors="ignore")


def parts(text: str, separator: str, longest: int) -> list[str]:
    """Cuts a long text at separators into parts of at most `longest` characters."""
    result, current = [], ""
    for block in text.split(separator):
        if current and len(current) + len(block) > longest:
            result.append(current)
            current = ""
        current += (separator if current else "") + block[:longest]
    return result + [current]


def files(folder: pathlib.Path, pattern: str, separator: str, clean=lambda text: text):
    """The texts of a package's files, with their names and where they may be cut."""
    for path in sorted(folder.rglob(pattern)):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(folder)), clean(read_text(path)), separator


def plain_manual(text: str) -> str:
    """Roff source without comments and font changes; what remains reads like the page."""
    text = re.sub(r'^[.\']\\".*\n', "", text, flags=re.M)
    text = re.sub(r"\\f(\(..|\[[^]]*\]|.)", "", text)
    text = re.sub(r"\\\*?\((..)", "", text).replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")
    return re.sub(r"^\.[A-Za-z]{1,2} ?", "", text, flags=re.M)


def dictionary(folder: pathlib.Path):
    text = read_text(next(folder.rglob("gcide.dict.dz")))
    yield "gcide", re.sub(r"\n *\[[^]\n]*1913 Webster[^]\n]*\]", "", text), "\n\n"


def word_senses(folder: pathlib.Path):
    """WordNet's glosses: words, then what they mean."""
    for name in ("data.noun", "data.verb", "data.adj"):
        lines = []
        for line in read_text(next(folder.rglob(name))).splitlines():
            if line.startswith("  ") or "|" not in line:
                continue
            fields, gloss = line.split("|", 1)
            words = fields.split()
            count = int(words[3], 16)
            lines.append(", ".join(words[4 + 2 * i].replace("_", " ") for i in range(count)) + ": "
                         + gloss.strip())
        yield name, "\n".join(lines), "\n"


def scripture(packages: pathlib.Path):
    """The King James Bible by chapters; the package's own program reads its data."""
    program = packages / "bible-kjv/usr/bin/bible"
    data = packages / "bible-kjv-text/usr/lib/"
    output = subprocess.run([program, "-f", "-p", f"{data}/", "Ge1:1-Re22:21"], check=True, text=True,
                            stdin=subprocess.DEVNULL, capture_output=True).stdout
    chapters: dict[str, list[str]] = {}
    for line in output.splitlines():
        match = re.match(r"(\w+?)(\d+):(\d+) (.*)", line)
        if match:
            chapters.setdefault(f"{match[1]}{match[2]}", []).append(match[4])
    for name, verses in chapters.items():
        yield name, "\n".join(verses), None


def statements(text: str) -> str:
    """Metamath without its proofs, which are compressed and read like noise."""
    return re.sub(r"\$=.*?\$\.", "$.", text, flags=re.S)


class TextSet(typing.NamedTuple):
    domain_bytes: int    # of each domain, where there are as many
    longest: int         # characters of a document
    validation: int      # percent of the documents
    test: int
    domains: dict        # name: the packages it needs, and how their folders become
                         # (name, text, where it may be cut, None: nowhere)


QUICKSTART = TextSet(2_500_000, 8000, 3, 3, {
    "python": (["libpython3.11-stdlib"], lambda p: files(p / "libpython3.11-stdlib", "*.py", "\n\n")),
    "go": (["golang-1.19-src"], lambda p: files(p / "golang-1.19-src", "*.go", "\n\n")),
    "french manual": (["manpages-fr"], lambda p: files(p / "manpages-fr", "*.gz", "\n", plain_manual)),
    "german manual": (["manpages-de"], lambda p: files(p / "manpages-de", "*.gz", "\n", plain_manual)),
    "dictionary": (["dict-gcide"], lambda p: dictionary(p / "dict-gcide")),
    "word senses": (["wordnet-base"], lambda p: word_senses(p / "wordnet-base")),
    "essays": (["anarchism"], lambda p: files(p / "anarchism", "*.md.gz", "\n\n")),
    "scripture": (["bible-kjv", "bible-kjv-text"], scripture),
})


def prose(packages: pathlib.Path):
    yield from files(packages / "anarchism", "*.md.gz", "\n\n")
    yield from scripture(packages)


def manuals(packages: pathlib.Path):
    yield from files(packages / "python3.11-doc", "*.rst.txt", "\n\n")
    yield from files(packages / "perl-doc", "*.pod", "\n\n")


RETENTION = TextSet(20_000_000, 1500, 1, 1, {
    "prose": (["anarchism", "bible-kjv", "bible-kjv-text"], prose),
    "manuals": (["python3.11-doc", "perl-doc"], manuals),
    "kernel": (["linux-doc-6.1"], lambda p: files(p / "linux-doc-6.1", "*.rst.gz", "\n\n")),
    "dictionary": (["dict-gcide"], lambda p: dictionary(p / "dict-gcide")),
    "german dictionary": (["dict-freedict-deu-eng"],
                          lambda p: files(p / "dict-freedict-deu-eng", "*.dict.dz", "\n\n")),
    "thesaurus": (["mythes-en-us"], lambda p: files(p / "mythes-en-us", "*.dat", "\n")),
    "mathematics": (["metamath-databases"],
                    lambda p: files(p / "metamath-databases", "*.mm", "\n\n", statements)),
    "locales": (["unicode-cldr-core"], lambda p: files(p / "unicode-cldr-core", "*.xml", "\n")),
    "sql": (["mariadb-test-data"], lambda p: files(p / "mariadb-test-data", "*.test", "\n")),
    "go": (["golang-1.19-src"], lambda p: files(p / "golang-1.19-src", "*.go", "\n\n")),
    "rust": (["rust-src"], lambda p: files(p / "rust-src", "*.rs", "\n\n")),
    "python": (["python3-sympy"], lambda p: files(p / "python3-sympy", "*.py", "\n\n")),
    "c++": (["libboost1.74-dev"], lambda p: files(p / "libboost1.74-dev", "*.hpp", "\n")),
    "erlang": (["erlang-src"], lambda p: files(p / "erlang-src", "*.erl", "\n\n")),
    "emacs lisp": (["emacs-el"], lambda p: files(p / "emacs-el", "*.el.gz", "\n\n")),
})
TEXT_SETS = {"quickstart": QUICKSTART, "retention": RETENTION}


def hash_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def documents_of(texts, longest: int) -> dict[str, str]:
    """Documents by id, in the order of the texts."""
    documents = {}
    for name, text, separator in texts:
        if separator is None:
            documents[name] = text.strip()
            continue
        for number, part in enumerate(parts(text, separator, longest)):
            documents[f"{name}#{number}"] = part.strip()
    return documents


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("output", type=pathlib.Path, help="folder to write into")
    parser.add_argument("texts", nargs="?", choices=TEXT_SETS, default="quickstart", help="which domains")
    options = parser.parse_args()
    output, chosen = options.output, TEXT_SETS[options.texts]
    packages = output / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    provide_package_lists(next(iter(chosen.domains.values()))[0][0])
    splits: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
    for domain, (needed, read) in chosen.domains.items():
        for package in needed:
            unpack(package, packages)
        documents = documents_of(read(packages), chosen.longest)
        used = 0
        for name in sorted(documents, key=lambda n: hash_of(domain + "/" + n)):
            text = documents[name]
            if len(text) < SHORTEST_DOCUMENT:
                continue
            if used > chosen.domain_bytes:
                break
            used += len(text.encode())
            bucket = hash_of(f"split/{domain}/{name}") % 100 - chosen.validation
            split = "validation" if bucket < 0 else "test" if bucket < chosen.test else "train"
            splits[split].append({"text": text, "source": domain, "id": f"{domain}/{name}"})
        print(f"{domain:17} {used / 1e6:5.2f} MB", file=sys.stderr)
    for split, documents in splits.items():
        documents.sort(key=lambda document: hash_of(document["id"]))
        with open(output / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for document in documents:
                file.write(json.dumps(document, ensure_ascii=False) + "\n")
        print(f"{split:16} {len(documents):5} documents", file=sys.stderr)


if __name__ == "__main__":
    main()
