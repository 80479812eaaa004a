"""Token files as a run reads them: mixes, patterns, NumPy's files, the reference's order against numpy, and what is
told of files that are missing, damaged or other than said."""
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.data.token_runs import CONFIG, EOS, VOCAB, losses  # noqa: E402
from tests.program import ROOT, Program, check, once, run_cases  # noqa: E402


def documents(seed: int, tokens: int) -> numpy.ndarray:
    """Ids of 2 to 255, an end of document every 40 on average."""
    random = numpy.random.default_rng(seed)
    ids = random.integers(2, 256, tokens)
    ids[random.random(tokens) < 1 / 40] = EOS
    return ids


@once
def files(emo: Program) -> pathlib.Path:
    """a, b and c: raw files of uint8, as the vocabulary says, of sizes that nothing divides."""
    folder = emo.folder / "files"
    for name, tokens in {"x/a.npy": 90_001, "x/b.npy": 8_191, "y/c.npy": 50_123}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        documents(len(name) + tokens, tokens).astype(numpy.uint8).tofile(folder / name)
    return folder


@once
def mix(emo: Program) -> pathlib.Path:
    path = files(emo) / "mix.txt"
    path.write_text("# a comment\nletters,x/a.npy\n\nletters,x/b.npy  # another\nothers,{TOKENIZER}/c.npy\n others , x/b.npy\n")
    return path


def reference_order(sizes: list[int], S: int, batch: int, seed: int, epoch: int) -> numpy.ndarray:
    """emo-facts 3.5, by numpy: chunks of each file in groups of 8192 tokens, groups shuffled, whole batches."""
    group = max(8192, S) // S
    groups = sum(size // max(8192, S) for size in sizes)
    order = numpy.arange(groups, dtype=numpy.uint32)
    numpy.random.Generator(numpy.random.PCG64(seed=seed + epoch)).shuffle(order)
    chunks = (order[:, None].astype(numpy.int64) * group + numpy.arange(group)[None]).reshape(-1)
    return chunks[:len(chunks) // batch * batch]


def order_of(emo: Program, *arguments) -> dict:
    return json.loads(emo.run("data", "order", *arguments).stdout)


def test_the_references_order_is_numpys(emo):
    names = ["--tokenizer-name", "y"]
    sizes = [90_001, 8_191, 50_123, 8_191]
    for S, batch, seed in ((1024, 8, 0), (2048, 3, 5), (4096, 8, 0), (8192, 2, 123456), (512, 7, 1)):
        found = order_of(emo, mix(emo), *names, *VOCAB, "--sequence-length", S, "--batch", batch,
                            "--seed", seed, "--count", 400)
        expected = numpy.concatenate([reference_order(sizes, S, batch, seed, epoch) for epoch in range(1, 60)])[:400]
        check(found["order"] == expected.tolist(), f"S {S}")
        check(found["sequences_per_epoch"] == len(reference_order(sizes, S, batch, seed, 1)), f"S {S}")
    index = emo.folder / "index"
    kept = order_of(emo, mix(emo), *names, *VOCAB, "--sequence-length", 1024, "--batch", 8, "--index", index)
    check(kept["order"] == reference_order(sizes, 1024, 8, 0, 1)[:8].tolist(), "with an index")
    file = next(index.glob("order/*.u32"))
    groups = numpy.frombuffer(file.read_bytes(), numpy.uint32, count=int(file.name.split("-")[0]))
    check(sorted(groups.tolist()) == list(range(len(groups))), "the file is a permutation")


def test_show_prints_the_rows_of_a_step_with_their_places(emo):
    names = ["--tokenizer-name", "y", *VOCAB]
    S, batch, step, seed = 512, 6, 2, 3
    shown = emo.run("data", "show", mix(emo), *names, "--order", "reference", "--seed", seed, "--batch", step,
                    "--batch-size", batch, "--sequence-length", S).stdout
    # Label and first chunk of each file: x/a.npy has 10 groups of 16 chunks, y/c.npy 6; x/b.npy is too short for one.
    owners = [("x/a.npy", "letters", 0), ("y/c.npy", "others", 160)]
    rows = re.findall(r"^row \d+, sequence (\d+), (\S+) from token (\d+) on\n((?:  document .*\n)+)", shown, re.M)
    chunks = reference_order([90_001, 8_191, 50_123, 8_191], S, batch, seed, 1)[step * batch:(step + 1) * batch]
    check(len(rows) == batch, f"{len(rows)} rows")
    for row, (sequence, path, begin, spans) in enumerate(rows):
        chunk = int(chunks[row])
        name, label, first = owners[chunk >= owners[1][2]]
        check(int(sequence) == step * batch + row and path.endswith("/" + name), f"row {row}: {path}")
        check(int(begin) == (chunk - first) * S, f"row {row}: from {begin} on")
        ids = numpy.fromfile(path, numpy.uint8)[int(begin):int(begin) + S]
        ends = sorted({*(numpy.flatnonzero(ids == EOS) + 1).tolist(), S})
        found = re.findall(r"tokens \[\d+, (\d+)\)  (\S+)", spans)
        check(found == [(str(at), label) for at in ends], f"row {row}: {found}")


def test_show_refuses_what_it_cannot_know(emo):
    file = files(emo) / "x" / "a.npy"
    for arguments, code, said in (([file], 64, "give --vocab-size and --eos-id"),
                                  ([files(emo) / "absent.npy"], 66, "no such file"),
                                  ([file, *VOCAB, "--documents", "whole"], 64, "run emo data index"),
                                  ([file, "--vocab-size", 256, "--eos-id", 256], 64, "not below the vocabulary's 256")):
        check(said in emo.run("data", "show", *arguments, expect=code).stderr, said)


def test_a_check_lists_sources_and_what_is_odd(emo):
    report = emo.json("data", "check", mix(emo), "--tokenizer-name", "y", *VOCAB, "--sequence-length", 1024)
    check(report["files"] == 4 and report["tokens"] == 90_001 + 8_191 + 50_123 + 8_191, f"{report}")
    check(report["sources"]["letters"]["rows"] == 87 + 7 and report["sources"]["others"]["files"] == 2, f"{report}")
    check(30 < report["tokens_per_document"] < 55 and report["odd"] == [], f"{report}")
    folder = emo.folder / "odd"
    shutil.copytree(files(emo), folder)
    (folder / "x/b.npy").unlink()
    damaged = bytearray((folder / "x/a.npy").read_bytes())
    damaged[70_000:70_010] = bytes([200] * 10)
    (folder / "x/a.npy").write_bytes(bytes(damaged))
    arguments = ["data", "check", folder / "mix.txt", "--tokenizer-name", "y", "--vocab-size", 180, "--eos-id", EOS]
    found = emo.run(*arguments, "--all", expect=1).stdout
    check("x/b.npy: No such file" in found and "x/a.npy: token" in found and "below the vocabulary's 180" in found, found)


def test_raw_files_are_trained_on_as_numpys(emo):
    raw = losses(emo, "raw", f"data.path={files(emo)}/x/a.npy")
    for kind in ("uint8", "<u2", "<u4", "<i4", "<i8"):
        path = emo.folder / f"{kind.strip('<')}.npy"
        numpy.save(path, numpy.fromfile(files(emo) / "x/a.npy", numpy.uint8).astype(kind))
        check(losses(emo, path.stem, f"data.path={path}") == raw, kind)
    wide = emo.folder / "wide.bin"
    numpy.fromfile(files(emo) / "x/a.npy", numpy.uint8).astype("<u4").tofile(wide)
    check(losses(emo, "wide", f"data.path={wide}", "data.dtype=uint32") == raw, "data.dtype")
    check(losses(emo, "sequential", f"data.path={wide}", "data.dtype=uint32", "data.order=sequential") != raw, "order")


def test_documents_and_ids_are_what_emo_prepare_says(emo):
    """The same tokens, prepared and read as they are, train alike to the bit."""
    tokenizer = emo.folder / "tokenizer.json"
    from tests.program import write_tokenizer
    write_tokenizer(tokenizer, merges=0)
    texts = emo.folder / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": f"document {i} says {i * i} " * (1 + i % 7)}) for i in range(900)))
    data = emo.folder / "prepared"
    emo.run("prepare", "--tokenizer", tokenizer, "--output", data, texts)
    info = json.loads((data / "dataset.json").read_text())
    common = [f"model.vocab_size={info['vocab_size']}", "data.order=sequential"]
    prepared = losses(emo, "run-prepared", f"data.path={data}", *common)
    shards = losses(emo, "run-shards", f"data.path={data}/tokens-*.npy", f"data.eos_id={info['eos_id']}",
                    f"data.tokenizer={tokenizer}", *common)
    check(prepared == shards, "other losses")
    copied = emo.folder / "run-shards" / "step-0000003" / "tokenizer.json"
    check(copied.read_bytes() == tokenizer.read_bytes(), "data.tokenizer is copied into checkpoints")


def test_the_references_order_goes_on_at_other_world_sizes(emo):
    overrides = [f"data.mix={mix(emo)}", "data.tokenizer_name=y", "data.order=reference", "data.seed=0",
                 f"data.index={emo.folder}/index-of-run"]
    whole = losses(emo, "one-rank", *overrides)
    half = emo.folder / "two-ranks"
    half.mkdir()
    shutil.copytree(emo.folder / "one-rank" / "step-0000003", half / "step-0000003")
    rest = losses(emo, "two-ranks", *overrides, ranks=2)
    for a, b in zip(rest, whole[3:], strict=True):
        check(abs(a["train/CE loss"] - b["train/CE loss"]) < 1e-5, f"{a['train/CE loss']} {b['train/CE loss']}")
    check(losses(emo, "other-seed", *overrides[:3], "data.seed=1") != whole, "the seed changes nothing")
    check(losses(emo, "own-seed", *overrides[:3], "data.seed=-1", "run.seed=0") ==
          losses(emo, "run-seed", *overrides[:3], "data.seed=0", "run.seed=0"), "-1 is run.seed")
    again = emo.folder / "changed"
    again.mkdir()
    shutil.copytree(emo.folder / "one-rank" / "step-0000003", again / "step-0000003")
    error = emo.run("train", *CONFIG, f"run.folder={again}", *overrides[:3], "data.seed=1", expect=64).stderr
    check("data.seed" in error, error)
    other = emo.folder / "other-data"
    shutil.copytree(files(emo), other)
    content = bytearray((other / "x/a.npy").read_bytes())
    content[45_000] ^= 2
    (other / "x/a.npy").write_bytes(bytes(content))
    error = emo.run("train", *CONFIG, f"run.folder={again}", f"data.mix={other}/mix.txt", *overrides[1:], expect=64).stderr
    check("its contents are not those" in error and "file 0: a.npy: as long as before, with other ids" in error, error)


def test_what_cannot_be_is_refused_by_name(emo):
    folder = emo.folder / "bad"
    folder.mkdir()
    numpy.save(folder / "big.npy", documents(1, 5000).astype(">u4"))
    numpy.save(folder / "table.npy", documents(1, 5000).reshape(50, 100).astype("<u4"))
    numpy.save(folder / "float.npy", documents(1, 5000).astype("<f4"))
    good = (files(emo) / "x/a.npy").read_bytes()
    numpy.save(folder / "cut.npy", documents(1, 5000).astype("<u4"))
    (folder / "cut.npy").write_bytes((folder / "cut.npy").read_bytes()[:-2])
    (folder / "half.bin").write_bytes(good[:9999])
    (folder / "short.bin").write_bytes(good[:100])
    (folder / "empty.bin").write_bytes(b"")
    (folder / "mix.txt").write_text("letters\n,x.npy\nletters,{TOKENIZER}/a.npy\n# nothing\n")
    (folder / "none.txt").write_text("# nothing\n")
    os.mkfifo(folder / "pipe")
    (folder / "gone.txt").write_text("a,one.npy\na,two.npy\n")
    for overrides, code, hints in (
            ([f"data.path={folder}/big.npy"], 65, ["big.npy", ">u4"]),
            ([f"data.path={folder}/table.npy"], 65, ["table.npy", "dimension"]),
            ([f"data.path={folder}/float.npy"], 65, ["float.npy", "<f4"]),
            ([f"data.path={folder}/cut.npy"], 65, ["cut.npy", "truncated"]),
            ([f"data.path={folder}/half.bin", "data.dtype=uint16"], 65, ["half.bin", "9999 bytes"]),
            ([f"data.path={folder}/short.bin"], 65, ["short.bin", "256 tokens"]),
            ([f"data.path={folder}/empty.bin"], 65, ["empty.bin"]),
            ([f"data.path={folder}/nothing-*.npy"], 66, ["nothing-*.npy"]),
            ([f"data.path={folder}"], 66, ["dataset.json"]),
            ([f"data.path={folder}/pipe"], 65, ["is no file, but a pipe"]),
            (["data.path=/dev/zero"], 65, ["is no file, but a pipe or a device"]),
            ([f"data.mix={folder}/mix.txt"], 64, ["mix.txt:1", "mix.txt:2", "mix.txt:3", "data.tokenizer_name"]),
            ([f"data.mix={folder}/none.txt"], 64, ["without files"]),
            ([f"data.mix={folder}/gone.txt"], 66, ["one.npy", "two.npy"]),
            ([f"data.mix={folder}/no.txt"], 66, ["no.txt"]),
            ([f"data.mix={mix(emo)}", f"data.path={folder}"], 64, ["one of path, mix and synthetic"]),
            ([f"data.mix={mix(emo)}", "data.eos_id=-1"], 64, ["data.eos_id"]),
            ([f"data.path={files(emo)}/x/a.npy", "data.eos_id=-1"], 64, ["data.eos_id"]),
            ([f"data.path={files(emo)}/x/a.npy", "data.eos_id=256"], 64, ["outside a vocabulary of 256"]),
            ([f"data.path={files(emo)}/x/a.npy", "data.tokenizer=no/where"], 66, ["no/where"]),
            ([f"data.path={files(emo)}/x/a.npy", "data.order=reference", "train.batch=4096"], 64, ["no batch of 4096"])):
        error = emo.run("train", *CONFIG, f"run.folder={emo.folder}/refused", *overrides, expect=code).stderr
        check(all(hint in error for hint in hints), f"{overrides}: {error}")


def test_an_id_outside_the_vocabulary_ends_the_run_with_its_place(emo):
    path = emo.folder / "large.bin"
    ids = documents(3, 20_000).astype("<u2")
    ids[300] = 999
    ids.tofile(path)
    error = emo.run("train", *CONFIG, f"run.folder={emo.folder}/large", f"data.path={path}", "data.dtype=uint16",
                    "data.order=sequential", expect=65).stderr
    check("token 999 at offset 300" in error and str(path) in error and "rows of step 1" in error, error)
    check("no step was lost" in error and not list((emo.folder / "large").glob("step-*")), error)


def test_what_was_learnt_is_saved_where_data_fails_later(emo):
    """And the run goes on once the file is mended, to the bits of one that was never stopped."""
    path = emo.folder / "later.bin"
    good = documents(4, 60_000).astype("<u2")
    ids = good.copy()
    ids[256 * 8 * 4 + 700] = 60_000  # in the fifth step
    ids.tofile(path)
    overrides = [f"data.path={path}", "data.dtype=uint16", "data.order=sequential"]
    for name, ranks in (("later-one", 0), ("later-two", 2)):
        error = emo.run("train", *CONFIG, f"run.folder={emo.folder / name}", *overrides, "checkpoint.every=0", expect=65,
                        ranks=ranks).stderr
        check("rows of step 5" in error and "token 60000" in error and "saved in" in error, error)
        check((emo.folder / name / "step-0000004").exists(), "no checkpoint of the step before")
    good.tofile(path)
    rest = losses(emo, "later-one", *overrides)
    whole = losses(emo, "never-stopped", *overrides)
    check(rest[-2:] == whole[-2:], "other losses after the repair")


def test_rows_that_repeat_are_masked_and_counted(emo):
    """One row in eight, on one rank and on two."""
    path = emo.folder / "repeats.bin"
    ids = documents(6, 256 * 8 * 12).astype("<u2")
    for row in range(0, len(ids) // 256, 8):
        ids[256 * row + 40:256 * row + 40 + 3 * 32] = numpy.tile([7, 8, 9], 32)
    ids.tofile(path)
    overrides = [f"data.path={path}", "data.dtype=uint16", "data.order=sequential", "data.repetition_filter=true"]
    for name, ranks in (("masked-one", 0), ("masked-two", 2)):
        lines = losses(emo, name, *overrides, ranks=ranks)
        check(all(line["train/masked instances (%)"] == 12.5 for line in lines), f"{name}: {lines[0]}")


def test_documents_of_every_length_train(emo):
    """Of one token, of none but its end, longer than many rows, and rows without any end."""
    folder = emo.folder / "lengths"
    folder.mkdir()
    words = numpy.random.default_rng(8).integers(2, 256, 10_000_000).astype(numpy.uint8)
    ends = words[:40_000].copy()
    ends[:] = EOS  # every token is a document: 256 in a row
    pairs = words[:40_000].copy()
    pairs[1::2] = EOS
    mixed = numpy.concatenate([words[:70], [EOS, EOS, EOS], words[:1], [EOS], words[:4000], [EOS]] * 10).astype(numpy.uint8)
    for name, ids in (("long", words), ("ends", ends), ("pairs", pairs), ("mixed", mixed)):
        ids.tofile(folder / f"{name}.npy")
        overrides = [f"data.path={folder}/{name}.npy", "train.steps=3", "routing.losses_over=all"]
        one, two = losses(emo, f"lengths-{name}", *overrides), losses(emo, f"lengths-{name}-two", *overrides, ranks=2)
        for a, b in zip(one, two, strict=True):
            for key in ("train/CE loss", "train/Z loss", "optim/total grad norm"):
                check(math.isfinite(a[key]) and abs(a[key] - b[key]) < 1e-4 * max(1, abs(a[key])), f"{name} {key}: {a[key]} {b[key]}")
        index = emo.folder / "lengths-index"
        emo.run("data", "index", folder / f"{name}.npy", *VOCAB, "--index", index)
        indexed = losses(emo, f"lengths-{name}-indexed", *overrides, f"data.index={index}")
        check(indexed == one, f"{name}: other losses with an index")


def test_the_mix_of_the_1t_run_is_what_the_script_makes(emo):
    made = subprocess.run([sys.executable, ROOT / "launch/olmoe_mix.py"], capture_output=True, text=True, check=True).stdout
    check(made == (ROOT / "configs/mixes/OLMoE-mix-0824.txt").read_text(), "configs/mixes/ and launch/olmoe_mix.py differ")
    lines = [line for line in made.splitlines() if not line.startswith("#")]
    counts = {label: sum(line.startswith(label + ",") for line in lines) for label in {line.split(",")[0] for line in lines}}
    check(len(lines) == 1122 and counts["dclm"] == 945 and counts["starcoder"] == 100 and counts["wikipedia"] == 2, f"{counts}")
    twice = [line for line in lines if lines.count(line) == 2]
    check(len(twice) == 10 and all("part-104-" in line for line in twice) and twice[0] == twice[1], f"{twice}")


if __name__ == "__main__":
    run_cases(globals())
