"""What the tests that drive the program from outside share: running it, and its files."""
import functools
import inspect
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent


Made = typing.TypeVar("Made")


def once(make: typing.Callable[["Program"], Made]) -> typing.Callable[["Program"], Made]:
    """What several cases need and is dear to make: made for the first that asks. Where making it failed, each of
    the others fails with the same error, at once."""
    made: list[Made] = []
    failed: list[Exception] = []

    @functools.wraps(make)
    def get(emo: "Program") -> Made:
        if failed:
            raise AssertionError(f"{make.__name__} failed already: {failed[0]}")
        if not made:
            try:
                made.append(make(emo))
            except Exception as error:
                failed.append(error)
                raise
        return made[0]

    return get


def run_cases(names: dict[str, typing.Any]) -> typing.NoReturn:
    """Runs every `test_...` function of a module (its globals()) in the order in which they stand, each to its own
    end: after a failure the rest runs too. A case gets as many of its arguments as it takes: the Program, of the
    executable that the command line names. Arguments after it choose cases by a part of their name. Ends with 1
    where one failed, 64 where none was chosen."""
    executable, *filters = sys.argv[1:] or [""]
    cases = [case for name, case in names.items() if name.startswith("test_") and inspect.isfunction(case)]
    chosen = [case for case in cases if not filters or any(part in case.__name__ for part in filters)]
    if not chosen:
        print(f"no such case; there are {', '.join(case.__name__ for case in cases)}", file=sys.stderr)
        sys.exit(64)
    failed = []
    with Program(executable) as emo:
        for case in chosen:
            begin = time.monotonic()
            try:
                case(*[emo][:len(inspect.signature(case).parameters)])
                verdict = "ok"
            except (Exception, SystemExit):
                verdict = "FAILED"
                failed.append(case.__name__)
                traceback.print_exc(file=sys.stdout)
            print(f"{verdict:6} {case.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
    print(f"{len(chosen) - len(failed)} of {len(chosen)} cases passed" + "".join(f"\nFAILED {name}" for name in failed))
    sys.exit(1 if failed else 0)


# Where the programs of a test compute: "", on the host, or a device. A test that says it itself is obeyed.
DEVICE = os.environ.get("EMO_TEST_ON", "")
ON_A_DEVICE = {"eval", "generate", "logits", "check", "experts usage", "experts rank", "experts retention", "experts place"}


def on_device(arguments: list[str]) -> list[str]:
    """A command's arguments, with the device where it takes one."""
    said = any(argument.startswith(("--device", "parallel.device=")) for argument in arguments)
    if not DEVICE or said or "--help" in arguments:
        return arguments
    if arguments[:1] == ["train"] or arguments[:2] == ["bench", "step"]:
        return [*arguments, f"parallel.device={DEVICE}"]
    if arguments[0] in ON_A_DEVICE or " ".join(arguments[:2]) in ON_A_DEVICE:
        return [*arguments, "--device", DEVICE]
    return arguments


class Program:
    def __init__(self, executable: str):
        self.executable = str(pathlib.Path(executable).resolve())
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="emo-test-"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *arguments, ranks: int = 0, threads: int = 1, expect: int | None = 0, timeout: int = 300,
            environment: dict[str, str] | None = None):
        """Runs the program, on `ranks` MPI ranks where that is not 0; checks its exit code."""
        command = [self.executable, *on_device([str(argument) for argument in arguments])]
        if ranks:
            command = [str(ROOT / "launch/mpirun.sh"), str(ranks), *command]
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), **(environment or {}))
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout,
                                env=environment, cwd=ROOT)
        if expect is not None and result.returncode != expect:
            raise AssertionError(f"{' '.join(command)}\nexit code {result.returncode}, expected {expect}\n"
                                 f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
        return result

    def json(self, *arguments, **options):
        return json.loads(self.run(*arguments, "--json", **options).stdout)


def read_folder(folder: pathlib.Path, stem: str = "model") -> dict[str, tuple]:
    """name -> (dtype, flat array; bf16 as 16-bit integers), of all safetensors files of a folder."""
    import numpy
    tensors = {}
    for path in sorted(folder.glob(f"{stem}*.safetensors")):
        content = path.read_bytes()
        start = 8 + struct.unpack("<Q", content[:8])[0]
        for name, entry in json.loads(content[8:start]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                kind = {"F32": numpy.float32, "BF16": numpy.uint16}[entry["dtype"]]
                tensors[name] = entry["dtype"], numpy.frombuffer(content[start + begin:start + end], kind)
    return tensors


def check(condition, message="") -> None:
    if not condition:
        raise AssertionError(message)


def close(a: float, b: float, tolerance: float) -> bool:
    return abs(a - b) <= tolerance


def write_tokenizer(path: pathlib.Path, merges: int = 300) -> None:
    """A byte-level tokenizer, trained on files of Python's library: on files of ours, every edit would change the
    tokens that tests compare numbers on."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    texts = [file.read_text() for file in sorted(pathlib.Path(json.__file__).parent.glob("*.py"))]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=257 + merges, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.save(str(path))
