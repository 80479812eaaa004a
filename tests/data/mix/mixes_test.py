"""Mixes with weights, lists of paths, the index of documents and rows of whole documents, as a run uses them."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.data.token_runs import CONFIG, EOS, VOCAB, losses  # noqa: E402
from tests.program import ROOT, Program, check, once, run_cases, write_tokenizer  # noqa: E402

SIZES = {"web-0.npy": 40_000, "web-1.npy": 25_000, "code.npy": 9_000, "book.npy": 3_000}


@once
def files(emo: Program) -> pathlib.Path:
    folder = emo.folder / "files"
    folder.mkdir()
    for number, (name, tokens) in enumerate(SIZES.items()):
        random = numpy.random.default_rng(number)
        ids = random.integers(2, 256, tokens)
        ids[random.random(tokens) < 1 / 90] = EOS
        ids.astype(numpy.uint8).tofile(folder / name)
    return folder


def write_mix(emo: Program, name: str, weights=(6, 3, 1), more: str = "") -> pathlib.Path:
    path = files(emo) / name
    web, code, book = weights
    path.write_text(f"- {{label: web, paths: web-*.npy, weight: {web}}}\n- {{label: code, paths: [code.npy], weight: {code}}}\n"
                    f"- {{label: book, paths: book.npy, weight: {book}{more}}}\n")
    return path


@once
def index(emo: Program) -> pathlib.Path:
    folder = emo.folder / "index"
    emo.run("data", "index", write_mix(emo, "indexed.yaml"), *VOCAB, "--index", folder)
    return folder


def ends_of(emo: Program, name: str) -> list[int]:
    ids = numpy.fromfile(files(emo) / name, numpy.uint8)
    return sorted({*(numpy.flatnonzero(ids == EOS) + 1).tolist(), len(ids)})


def close(found: list[dict], expected: list[dict], what: str) -> None:
    for a, b in zip(found, expected, strict=True):
        check(abs(a["train/CE loss"] - b["train/CE loss"]) < 1e-5, f"{what}: {a['train/CE loss']} {b['train/CE loss']}")


def start_from(emo: Program, run: str, name: str) -> pathlib.Path:
    """A new run's folder with the third step of another."""
    folder = emo.folder / name
    folder.mkdir()
    shutil.copytree(emo.folder / run / "step-0000003", folder / "step-0000003")
    return folder


def test_a_weighted_mix_is_one_sequence_for_every_world_size(emo):
    mix = write_mix(emo, "mix.yaml")
    overrides = [f"data.mix={mix}", "data.seed=5"]
    whole = losses(emo, "mix-one", *overrides)
    close(losses(emo, "mix-two", *overrides, ranks=2), whole, "two ranks")
    start_from(emo, "mix-one", "mix-rest")
    close(losses(emo, "mix-rest", *overrides, ranks=2), whole[3:], "on two ranks from the third step")
    # The state says where each source is: 24 rows of 256 in shares of 6, 3 and 1.
    sources = json.loads((emo.folder / "mix-one/step-0000003/data.json").read_text())["sources"]
    check(sum(source["sequences"] for source in sources) == 24, f"{sources}")
    for source, share, rows in zip(sources, (0.6, 0.3, 0.1), (253, 35, 11), strict=True):
        check(abs(source["sequences"] - 24 * share) <= 1 and abs(source["epochs"] - source["sequences"] / rows) < 1e-9,
              f"{source}")
    order = json.loads(emo.run("data", "order", mix, *VOCAB, "--sequence-length", 256, "--order", "ours", "--seed", 5,
                               "--count", 48).stdout)
    check(len(order["order"]) == 48 and order["chunks"] == 253 + 35 + 11, f"{order}")


def test_other_weights_are_other_data(emo):
    losses(emo, "weights", f"data.mix={write_mix(emo, 'weights.yaml')}")
    start_from(emo, "weights", "weights-rest")
    changed = write_mix(emo, "weights.yaml", weights=(6, 3, 2))
    error = emo.run("train", *CONFIG, f"run.folder={emo.folder}/weights-rest", f"data.mix={changed}", expect=64).stderr
    check("its contents are not those" in error and "weights" in error, error)


def test_a_source_that_would_be_read_too_often_ends_the_run_before_it_begins(emo):
    mix = write_mix(emo, "often.yaml", weights=(1, 1, 1), more=", max_epochs: 1.25")
    error = emo.run("train", *CONFIG, f"run.folder={emo.folder}/often", f"data.mix={mix}", expect=64).stderr
    check("source 'book': the run takes 16 sequences, 1.455 epochs of its 11; max_epochs is 1.25" in error, error)
    check(not (emo.folder / "often").exists(), "a folder was made")
    error = emo.run("train", *CONFIG, f"run.folder={emo.folder}/often", f"data.mix={mix}", "data.order=reference",
                    expect=64).stderr
    check("without weights" in error, error)


def test_a_list_of_paths_is_the_mix_of_its_files(emo):
    folder = files(emo)
    (folder / "list.yaml").write_text("- {label: files, paths: [web-1.npy, web-0.npy, book.npy]}\n")
    listed = losses(emo, "list", f"data.path=[{folder}/web-1.npy, '{folder}/web-0*', {folder}/book.npy]")
    check(listed == losses(emo, "list-mix", f"data.mix={folder}/list.yaml"), "other losses")
    again = emo.folder / "list/config.yaml"
    check(f'path: ["{folder}/web-1.npy", "{folder}/web-0*"' in again.read_text(), "config.yaml")
    emo.run("train", again, "train.steps=6", "--quiet")  # is done
    error = emo.run("train", *CONFIG, f"run.folder={emo.folder}/no", f"data.path=[{folder}, {folder}/book.npy]",
                    expect=64).stderr
    check("a folder among several paths" in error, error)


def test_the_index_holds_every_end(emo):
    folder = index(emo)
    for name in SIZES:
        file = next(folder.glob(f"ends/{name}-*.ends"))
        ends = numpy.frombuffer(file.read_bytes()[24:-128], numpy.uint64).tolist()
        check(ends == ends_of(emo, name), name)
    report = emo.json("data", "check", write_mix(emo, "indexed.yaml"), *VOCAB, "--index", folder, "--sequence-length", 256)
    check(report["documents"] == sum(len(ends_of(emo, name)) for name in SIZES), f"{report}")
    check(report["sources"]["web"]["share"] == 0.6 and report["packing"]["documents"] == report["documents"], f"{report}")
    cut = sum(begin // 256 != (end - 1) // 256 or end > SIZES[name] // 256 * 256
              for name in SIZES for begin, end in zip([0, *ends_of(emo, name)], ends_of(emo, name)))
    check(report["packing"]["cut_documents"] == cut, f"{report['packing']} {cut}")
    shown = emo.run("data", "show", files(emo) / "code.npy", *VOCAB, "--index", folder, "--order", "sequential",
                    "--sequence-length", 256).stdout
    check("number 0" in shown and "number 3" in shown, shown)


def test_an_index_is_made_once_at_a_time_and_goes_on(emo):
    folder = emo.folder / "large"
    folder.mkdir()
    ids = numpy.random.default_rng(1).integers(2, 256, 60_000_000).astype(numpy.uint8)
    for number in range(3):
        ids[::400 + number] = EOS
        ids.tofile(folder / f"{number}.npy")
    arguments = [emo.executable, "data", "index", f"{folder}/*.npy", *map(str, VOCAB), "--index", str(emo.folder / "slow"),
                 "--threads", "1"]
    first = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ends = emo.folder / "slow" / "ends"
    while first.poll() is None and not list(ends.glob("0.npy-*.ends")):
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)
    second = emo.run(*arguments[1:], expect=73 if first.poll() is None else 0).stderr
    check(first.poll() is not None or f"in use by process {first.pid} on" in second, second)
    first.kill()
    first.wait()
    (ends / "2.npy-1.ends.tmp-1").write_text("left over")
    kept = next(ends.glob("0.npy-*.ends")).stat().st_mtime_ns
    emo.run(*arguments[1:])
    check(next(ends.glob("0.npy-*.ends")).stat().st_mtime_ns == kept, "the first was made again")
    check(len(list(ends.glob("*.ends"))) == 3 and not list(ends.glob("*.tmp-*")), f"{list(ends.iterdir())}")
    os.truncate(next(ends.glob("1.npy-*.ends")), 1000)
    error = emo.run(*arguments[1:], expect=65).stderr
    check("truncated" in error and "remove it" in error, error)


def test_rows_of_whole_documents(emo):
    mix = write_mix(emo, "whole.yaml")
    error = emo.run("train", *CONFIG, f"run.folder={emo.folder}/no-index", f"data.mix={mix}", "data.documents=best_fit",
                    expect=64).stderr
    check("run emo data index" in error, error)
    for packing in ("whole", "best_fit"):
        overrides = [f"data.mix={mix}", f"data.documents={packing}", f"data.index={index(emo)}"]
        one = losses(emo, packing, *overrides)
        close(losses(emo, f"{packing}-two", *overrides, ranks=2), one, packing)
    report = emo.json("data", "check", mix, *VOCAB, "--index", index(emo), "--sequence-length", 256, "--documents", "best_fit")
    lengths = [end - begin for name in SIZES for begin, end in zip([0, *ends_of(emo, name)], ends_of(emo, name))]
    packing = report["packing"]
    check(packing["cut_documents"] == sum(length > 256 for length in lengths), f"{packing}")
    check(packing["filling_tokens"] == packing["rows"] * 256 - sum(SIZES.values()), f"{packing}")
    check(packing["dropped_tokens"] == 0, f"{packing}")
    start_from(emo, "best_fit", "other-packing")
    error = emo.run("train", *CONFIG, f"run.folder={emo.folder}/other-packing", f"data.mix={mix}", expect=64).stderr
    check("data.documents: was best_fit, is cut" in error, error)


def test_a_prepared_folder_is_packed_too(emo):
    tokenizer = emo.folder / "tokenizer.json"
    write_tokenizer(tokenizer, merges=0)
    texts = emo.folder / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": f"document {i} " * (1 + i % 60)}) for i in range(900)))
    data = emo.folder / "prepared"
    emo.run("prepare", "--tokenizer", tokenizer, "--output", data, texts)
    shares = {}
    for packing in ("cut", "whole", "best_fit"):
        report = emo.json("data", "check", data, "--sequence-length", 512, "--documents", packing)
        shares[packing] = report["packing"]
    check(shares["cut"]["cut_documents"] > 100 and shares["cut"]["filling_tokens"] == 0, f"{shares}")
    check(shares["best_fit"]["filling_tokens"] < shares["whole"]["filling_tokens"], f"{shares}")
    check(shares["best_fit"]["dropped_tokens"] == 0 < shares["whole"]["dropped_tokens"], f"{shares}")
    # Ids that were put in the place of others since.
    overrides = [f"data.path={data}", "model.vocab_size=" + str(json.loads((data / "dataset.json").read_text())["vocab_size"])]
    losses(emo, "prepared-run", *overrides)
    start_from(emo, "prepared-run", "prepared-rest")
    tokens = numpy.fromfile(data / "tokens-00000.npy", numpy.uint16)
    tokens[:len(tokens) // 2] = 7
    tokens.tofile(data / "tokens-00000.npy")
    error = emo.run("train", *CONFIG, f"run.folder={emo.folder}/prepared-rest", *overrides, expect=64).stderr
    check("tokens-00000: as long as before, with other ids" in error, error)
    emo.run("data", "check", data, "--all", expect=1)


def test_a_check_compares_with_a_checkpoint_and_with_the_index(emo):
    folder = emo.folder / "moved"
    shutil.copytree(files(emo), folder)
    mix = write_mix(emo, "checked.yaml")
    losses(emo, "checked", f"data.mix={mix}", f"data.index={index(emo)}")
    arguments = ["--root", folder, *VOCAB, "--sequence-length", 256, "--index", index(emo)]
    checkpoint = emo.folder / "checked/step-0000006"
    emo.run("data", "check", mix, *arguments, "--all", "--checkpoint", checkpoint)  # wherever the files lie
    ids = numpy.fromfile(folder / "web-0.npy", numpy.uint8)
    ids[10_000] = 77 if ids[10_000] != 77 else 78  # where no sample looks
    ids.tofile(folder / "web-0.npy")
    emo.run("data", "check", mix, *arguments, "--checkpoint", checkpoint)
    found = emo.run("data", "check", mix, *arguments, "--all", expect=1).stdout
    check("web-0.npy: its ids are not those that" in found, found)
    ids[20_100] = 3 if ids[20_100] != 3 else 4  # the middle
    ids.tofile(folder / "web-0.npy")
    found = emo.run("data", "check", mix, *arguments, "--checkpoint", checkpoint, expect=1).stdout
    check("has seen it: file 0: web-0.npy: as long as before, with other ids" in found, found)
    (folder / "book.npy").unlink()
    found = emo.run("data", "check", mix, *arguments, expect=66).stderr
    check("book.npy: no such file" in found, found)


def test_other_data_begins_at_its_own_beginning(emo):
    """An anneal on another mix: its sources are counted from there, on any number of ranks, and after a stop too."""
    losses(emo, "before", f"data.mix={write_mix(emo, 'before.yaml')}", "schedule.kind=constant")
    mix = write_mix(emo, "after.yaml", weights=(1, 1, 1), more=", max_epochs: 1")
    onward = [f"data.mix={mix}", f"run.start_from={emo.folder}/before/step-0000003", "run.take=all", "schedule.kind=constant"]
    error = emo.run("train", *CONFIG, f"run.folder={emo.folder}/after", *onward, expect=64).stderr
    check("run.change_data=true" in error, error)
    after = losses(emo, "after", *onward, "run.change_data=true")
    sources = json.loads((emo.folder / "after/step-0000006/data.json").read_text())["sources"]
    check([source["sequences"] for source in sources] == [8, 8, 8], f"{sources}")
    rows = json.loads(emo.run("data", "order", mix, *VOCAB, "--sequence-length", 256, "--order", "ours", "--seed", 1,
                              "--count", 8).stdout)["order"]
    check(len(set(rows)) == 8, f"{rows}")
    folder = emo.folder / "after-stopped"
    emo.run("train", *CONFIG, f"run.folder={folder}", *onward, "run.change_data=true", "checkpoint.every=1")
    shutil.rmtree(folder / "step-0000006")
    shutil.rmtree(folder / "step-0000005")
    rest = losses(emo, "after-stopped", *onward, "run.change_data=true", ranks=2)
    close(rest, after, "stopped after the fourth step")
    error = emo.run("train", *CONFIG, f"run.folder={emo.folder}/too-long", *onward, "run.change_data=true", "train.steps=9",
                    expect=64).stderr
    check("source 'book': the run takes 16 sequences" in error, error)


def test_odd_names_places_and_limits(emo):
    folder = emo.folder / "odd [1] names"
    shutil.copytree(files(emo), folder)
    (folder / "list.txt").write_text("a,web-0.npy\n" * 300)
    os.mkfifo(folder / "pipe.yaml")
    check(emo.json("data", "check", folder / "book.npy", *VOCAB, "--sequence-length", 256)["files"] == 1, "brackets")
    error = emo.run("data", "order", folder / "pipe.yaml", *VOCAB, expect=64).stderr
    check("is no file, but a pipe" in error, error)
    check("not a number of 0 to 1024" in emo.run("data", "index", folder / "book.npy", *VOCAB, "--index", emo.folder / "no", "--threads",
                                      10**9, expect=64).stderr, "threads")
    # As many files as the system lets a process open are opened, whatever it begins with; more are an error that says so.
    order = f"exec {emo.executable} data order '{folder}/list.txt' --vocab-size 256 --eos-id {EOS} --sequence-length 256"
    soft = subprocess.run(["bash", "-c", f"ulimit -Sn 100; {order}"], capture_output=True, text=True)
    check(soft.returncode == 0, soft.stderr)
    hard = subprocess.run(["bash", "-c", f"ulimit -n 200; {order}"], capture_output=True, text=True)
    check(hard.returncode == 73 and "ulimit -n" in hard.stderr, f"{hard}")
    # A file shorter than a row is a row all the same where documents are packed.
    ids = numpy.fromfile(folder / "book.npy", numpy.uint8)
    ids[:200].tofile(folder / "short.npy")
    arguments = ["data", "check", folder / "short.npy", *VOCAB, "--sequence-length", 1024, "--index", emo.folder / "short-index"]
    check("are no row of 1024" in emo.run(*arguments, expect=1).stdout, "short")
    found = emo.run(*arguments, "--documents", "best_fit", expect=1).stdout
    check("run emo data index" in found and "short.npy" in found, found)
    emo.run("data", "index", *arguments[2:])
    check(emo.json(*arguments, "--documents", "best_fit")["packing"]["rows"] == 1, "one row")
    (folder / "empty.npy").write_bytes(b"")
    emo.run("data", "index", folder / "*.npy", *VOCAB, "--index", emo.folder / "short-index", expect=66)
    (folder / "two.txt").write_text("a,empty.npy\na,book.npy\n")
    more = [folder / "two.txt", *VOCAB, "--index", emo.folder / "short-index"]
    emo.run("data", "index", *more)
    emo.run("data", "show", *more, "--documents", "whole", "--sequence-length", 256)
    (folder / "bad.txt").write_text("a,gone.npy\nb,book.npy\nc,lost.npy\n")
    error = emo.run("data", "index", folder / "bad.txt", *VOCAB, "--index", emo.folder / "short-index", expect=66).stderr
    check("gone.npy" in error and "lost.npy" in error, error)


def test_ranks_with_other_data_end_the_run(emo):
    other = emo.folder / "of-rank-1"
    shutil.copytree(files(emo), other)
    ids = numpy.fromfile(other / "web-0.npy", numpy.uint8)
    ids[:50] = 9
    ids.tofile(other / "web-0.npy")
    train = [emo.executable, "train", *CONFIG, f"run.folder={emo.folder}/apart"]
    mpirun = [ROOT / "launch/mpirun.sh", "1", *train, f"data.path={files(emo)}/web-0.npy", ":", "-n", "1", *train,
              f"data.path={other}/web-0.npy"]
    result = subprocess.run(mpirun, capture_output=True, text=True, timeout=100)
    check(result.returncode == 65 and "data of rank 1 is not that of rank 0" in result.stderr, f"{result}")
    check(not (emo.folder / "apart").exists(), "a folder was made")


def test_checkpoints_hold_the_tokenizer_whatever_becomes_of_its_file(emo):
    tokenizer = emo.folder / "once.json"
    write_tokenizer(tokenizer, merges=0)
    text = tokenizer.read_bytes()
    arguments = ["configs/tiny.yaml", "train.steps=400", "data.sequence_length=256", "data.synthetic=none",
                 f"data.eos_id={EOS}", f"data.path={files(emo)}/web-0.npy", f"data.tokenizer={tokenizer}",
                 f"run.folder={emo.folder}/held", "checkpoint.every=20", "--quiet"]
    run = subprocess.Popen([emo.executable, "train", *arguments])
    while not list((emo.folder / "held").glob("step-*[0-9]/MANIFEST")):
        check(run.poll() is None, "the run has ended")
        time.sleep(0.01)
    tokenizer.write_text("{}")
    run.send_signal(signal.SIGTERM)
    check(run.wait() == 75, "how it ended")
    last = max((emo.folder / "held").glob("step-*"))
    check((last / "tokenizer.json").read_bytes() == text, f"{last}")


if __name__ == "__main__":
    run_cases(globals())
