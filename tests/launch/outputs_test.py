"""What commands write, and where: files, links, devices, pipes, what is open already, and closed descriptors.

Every command that has an output is tried on each of them, with a model of tests/golden/compat.
"""
import json
import os
import pathlib
import stat
import subprocess
import sys
import threading

import numpy
from safetensors.numpy import load, save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.program import ROOT, Program, check  # noqa: E402

GOLDEN = ROOT / "tests/golden/compat/0.1.0"
MODEL, TEST, TRAIN = GOLDEN / "one/step-0000006", GOLDEN / "data/test", GOLDEN / "data/train"
STEPS = ["train.steps=2", "train.batch=4", "--steps", "1", "--warmup", "0"]


class Commands:
    """Every command that writes a file, as its arguments without the output's name."""

    def __init__(self, emo: Program):
        self.emo = emo
        tasks, tokens = emo.folder / "colours.jsonl", emo.folder / "tokens.safetensors"
        tasks.write_text("".join(json.dumps({"context": f"colour {i} is", "choices": ["red", "blue"], "gold": 0}) + "\n"
                                 for i in range(3)))
        save_file({"input_ids": numpy.arange(1, 17, dtype=numpy.int64).reshape(1, 16)}, tokens)
        self.all = {
            "rank": ["experts", "rank", MODEL, "--data", TRAIN, "--keep", "0.5", "--method", "router", "--output"],
            "usage": ["experts", "usage", MODEL, "--data", TRAIN, "--output"],
            "place": ["experts", "place", MODEL, "--data", TRAIN, "--ranks", "2", "--output"],
            "retention": ["experts", "retention", MODEL, "--calibration", TRAIN, "--data", TEST, "--keep", "0.5",
                          "--method", "router", "--output"],
            "eval": ["eval", MODEL, "--tasks", tasks, "--predictions"],
            "logits": ["logits", MODEL, "--tokens", tokens, "--output"],
            "bench step": ["bench", "step", ROOT / "configs/tiny.yaml", *STEPS, "--trace"],
        }

    def run(self, name: str, output, *more, expect: int | None = 0) -> subprocess.CompletedProcess:
        return self.emo.run(*self.all[name], output, *more, expect=expect)


def read_output(name: str, content: bytes) -> None:
    """Fails unless it is all of what the command writes."""
    if name == "logits":
        check(load(content)["logits"].shape[:2] == (1, 16), "logits")
    elif name == "eval":
        check(len([json.loads(line) for line in content.decode().splitlines()]) == 3, "predictions")
    else:
        check(json.loads(content), name)


def device(path: pathlib.Path, minor: int) -> pathlib.Path:
    """/dev/null (3) or /dev/full (7), one of our own where that is allowed."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    except PermissionError:
        path.symlink_to({3: "/dev/null", 7: "/dev/full"}[minor])
    return path


def links_stay(commands: Commands, name: str) -> None:
    folder = commands.emo.folder / "links" / name
    (folder / "there").mkdir(parents=True)
    for target, exists in (("old.json", True), ("new.json", False)):
        link = folder / f"to-{target}"
        link.symlink_to(f"there/{target}")
        if exists:
            (folder / "there" / target).write_text("old")
            result = commands.run(name, link, expect=73)
            check("--overwrite" in result.stderr and (folder / "there" / target).read_text() == "old", result.stderr)
        commands.run(name, link, *(["--overwrite"] if exists else []))
        check(link.is_symlink(), f"{link} is no link any more")
        read_output(name, (folder / "there" / target).read_bytes())
    leftover = [path.name for path in folder.rglob("*") if ".tmp" in path.name]
    check(not leftover, f"left behind: {leftover}")


def devices_are_written_to(commands: Commands, name: str) -> None:
    folder = commands.emo.folder / "devices" / name
    folder.mkdir(parents=True)
    null, full = device(folder / "null", 3), device(folder / "full", 7)
    for more in ([], ["--overwrite"]):
        commands.run(name, null, *more)
        result = commands.run(name, full, *more, expect=73)
        check("No space left" in result.stderr, result.stderr)
    check(null.is_char_device() and full.is_char_device(), "a device was replaced")
    check(sorted(path.name for path in folder.iterdir()) == ["full", "null"], str(list(folder.iterdir())))


def pipes_are_written_to(commands: Commands, name: str) -> None:
    pipe = commands.emo.folder / f"pipe-{name.replace(' ', '-')}"
    os.mkfifo(pipe)
    content = []
    reader = threading.Thread(target=lambda: content.append(pipe.read_bytes()))
    reader.start()
    commands.run(name, pipe)
    reader.join(timeout=60)
    check(content, "nobody wrote to the pipe")
    read_output(name, content[0])
    check(pipe.is_fifo(), "the pipe was replaced")


def what_is_open_is_written_to(commands: Commands, name: str) -> None:
    """As `--output >(cat)` and `--output /dev/stdout > FILE` have it."""
    command = [commands.emo.executable, *map(str, commands.all[name])]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    reading, writing = os.pipe()
    content = []

    def read() -> None:
        with open(reading, "rb") as file:
            content.append(file.read())

    reader = threading.Thread(target=read)
    reader.start()
    result = subprocess.run([*command, f"/dev/fd/{writing}"], pass_fds=[writing], capture_output=True, text=True,
                            env=environment, timeout=120)
    os.close(writing)
    reader.join(timeout=60)
    check(result.returncode == 0, f"{result.returncode}: {result.stderr}")
    read_output(name, content[0])
    output = commands.emo.folder / f"standard-{name.replace(' ', '-')}"
    with open(output, "wb") as file:
        file.write(b"before\n")
        file.flush()
        result = subprocess.run([*command, "/dev/stdout"], stdout=file, stderr=subprocess.PIPE, env=environment,
                                timeout=120)
        check(result.returncode == 0, f"{result.returncode}: {result.stderr}")
        file.write(b"after")
    content = output.read_bytes()
    check(content.startswith(b"before\n") and content.endswith(b"after"), "the shell's file was replaced")
    if name != "logits":  # what the command prints comes behind
        check(content[len("before\n"):][:1] == b"{", f"{name}: {content[:80]}")


def a_folder_is_refused_first(commands: Commands, name: str) -> None:
    for output in (commands.emo.folder, "/proc/output.json", commands.emo.folder / "nowhere/output.json"):
        result = commands.run(name, output, expect=73)
        check(str(output) in result.stderr, result.stderr)


def closed_descriptors_are_not_reused(commands: Commands, _: str) -> None:
    emo = commands.emo
    tokenizer, documents = GOLDEN / "tokenizer.json", GOLDEN / "documents.jsonl"

    def run(closed: str, *arguments) -> int:
        script = f'exec "$@" {" ".join(f"{fd}>&-" if fd != "0" else "0<&-" for fd in closed)}'
        return subprocess.run(["sh", "-c", script, "sh", emo.executable, *map(str, arguments)], cwd=ROOT, timeout=200,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                              env=dict(os.environ, OMP_NUM_THREADS="1")).returncode

    emo.run("prepare", "--tokenizer", tokenizer, "--output", emo.folder / "prepared", documents)
    train = ["train", "configs/tiny.yaml", "train.steps=3", "eval.every=0"]
    emo.run(*train, f"run.folder={emo.folder}/run")

    def metrics(run_folder: pathlib.Path) -> list[list[str]]:
        return [sorted(json.loads(line)) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]

    for closed in ("0", "1", "2", "12", "012"):
        output = emo.folder / f"prepared-{closed}"
        # A summary that cannot be printed is an error, after the work.
        code = run(closed, "prepare", "--tokenizer", tokenizer, "--output", output, documents)
        check(code == (74 if "1" in closed else 0), f"prepare without {closed}: exit code {code}")
        for name in ("tokens-00000.npy", "tokens-00000.index", "tokens-00000.ids", "dataset.json"):
            check((output / name).read_bytes() == (emo.folder / "prepared" / name).read_bytes(),
                  f"without descriptors {closed}, {name} has other bytes")
        code = run(closed, *train, f"run.folder={emo.folder}/run-{closed}")
        check(code in ((0, 74) if "1" in closed else (0,)), f"train without {closed}: exit code {code}")
        check(metrics(emo.folder / f"run-{closed}") == metrics(emo.folder / "run"), f"metrics.jsonl without {closed}")


CASES = [links_stay, devices_are_written_to, pipes_are_written_to, what_is_open_is_written_to,
         a_folder_is_refused_first]


def main() -> None:
    failures = 0
    with Program(sys.argv[1]) as emo:
        commands = Commands(emo)
        for case, name in [*((case, name) for case in CASES for name in commands.all),
                           (closed_descriptors_are_not_reused, "prepare and train")]:
            try:
                case(commands, name)
                print(f"ok: {case.__name__}, {name}", flush=True)
            except Exception as failure:  # noqa: BLE001 - the other cases run too
                failures += 1
                print(f"FAILED {case.__name__}, {name}: {failure!r}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
