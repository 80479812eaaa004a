"""Real text for the quick start: fixed Debian packages become JSON lines of eight distinct domains.

Usage: texts.py OUTPUT_FOLDER

Packages are downloaded and unpacked into OUTPUT_FOLDER/packages, never installed. Writes train.jsonl,
validation.jsonl and test.jsonl with {"text", "source", "id"}: about 2.5 MB of each domain, documents
of at most 8000 characters, split by a hash of their id (94 : 3 : 3). The same packages give the same
files. Needs nothing but Python's standard library and apt.
"""
import gzip
import hashlib
import json
import pathlib
import re
import subprocess
import sys

DOMAIN_BYTES = 2_500_000
DOCUMENT_CHARACTERS = 8000
SHORTEST_DOCUMENT = 200


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


def parts(text: str, separator: str) -> list[str]:
    """Cuts a long text at separators into parts of at most DOCUMENT_CHARACTERS."""
    result, current = [], ""
    for block in text.split(separator):
        if current and len(current) + len(block) > DOCUMENT_CHARACTERS:
            result.append(current)
            current = ""
        current += (separator if current else "") + block[:DOCUMENT_CHARACTERS]
    return result + [current]


def files(folder: pathlib.Path, pattern: str, separator: str, clean=lambda text: text):
    """A document for each file, or several for a long one."""
    for path in sorted(folder.rglob(pattern)):
        if path.is_file() and not path.is_symlink():
            for number, part in enumerate(parts(clean(read_text(path)), separator)):
                yield f"{path.relative_to(folder)}#{number}", part


def plain_manual(text: str) -> str:
    """Roff source without comments and font changes; what remains reads like the page."""
    text = re.sub(r'^[.\']\\".*\n', "", text, flags=re.M)
    text = re.sub(r"\\f(\(..|\[[^]]*\]|.)", "", text)
    text = re.sub(r"\\\*?\((..)", "", text).replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")
    return re.sub(r"^\.[A-Za-z]{1,2} ?", "", text, flags=re.M)


def dictionary(folder: pathlib.Path):
    text = read_text(next(folder.rglob("gcide.dict.dz")))
    text = re.sub(r"\n *\[[^]\n]*1913 Webster[^]\n]*\]", "", text)
    for number, part in enumerate(parts(text, "\n\n")):
        yield f"gcide#{number}", part


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
        for number, part in enumerate(parts("\n".join(lines), "\n")):
            yield f"{name}#{number}", part


def scripture(packages: pathlib.Path):
    """The King James Bible, a document for each chapter; the package's own program reads its data."""
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
        yield name, "\n".join(verses)


# Domain, the packages it needs, and how their folders become (id, text).
DOMAINS = {
    "python": (["libpython3.11-stdlib"], lambda p: files(p / "libpython3.11-stdlib", "*.py", "\n\n")),
    "go": (["golang-1.19-src"], lambda p: files(p / "golang-1.19-src", "*.go", "\n\n")),
    "french manual": (["manpages-fr"], lambda p: files(p / "manpages-fr", "*.gz", "\n", plain_manual)),
    "german manual": (["manpages-de"], lambda p: files(p / "manpages-de", "*.gz", "\n", plain_manual)),
    "dictionary": (["dict-gcide"], lambda p: dictionary(p / "dict-gcide")),
    "word senses": (["wordnet-base"], lambda p: word_senses(p / "wordnet-base")),
    "essays": (["anarchism"], lambda p: files(p / "anarchism", "*.md.gz", "\n\n")),
    "scripture": (["bible-kjv", "bible-kjv-text"], scripture),
}


def hash_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def main() -> None:
    output = pathlib.Path(sys.argv[1])
    packages = output / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    splits: dict[str, list[dict]] = {"train": [], "validation": [], "test": []}
    for domain, (needed, documents_of) in DOMAINS.items():
        for package in needed:
            unpack(package, packages)
        documents = {name: text.strip() for name, text in documents_of(packages)}
        used = 0
        for name in sorted(documents, key=lambda n: hash_of(domain + "/" + n)):
            text = documents[name]
            if len(text) < SHORTEST_DOCUMENT:
                continue
            if used > DOMAIN_BYTES:
                break
            used += len(text.encode())
            bucket = hash_of(f"split/{domain}/{name}") % 100
            split = "validation" if bucket < 3 else "test" if bucket < 6 else "train"
            splits[split].append({"text": text, "source": domain, "id": f"{domain}/{name}"})
        print(f"{domain:16} {used / 1e6:5.2f} MB", file=sys.stderr)
    for split, documents in splits.items():
        documents.sort(key=lambda document: hash_of(document["id"]))
        with open(output / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for document in documents:
                file.write(json.dumps(document, ensure_ascii=False) + "\n")
        print(f"{split:16} {len(documents):5} documents", file=sys.stderr)


if __name__ == "__main__":
    main()
