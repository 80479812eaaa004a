"""What the tests that drive the program from outside share: running it, and its files."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Program:
    def __init__(self, executable: str):
        self.executable = str(pathlib.Path(executable).resolve())
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="emo-test-"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *arguments, ranks: int = 0, threads: int = 1, expect: int | None = 0, timeout: int = 300):
        """Runs the program, on `ranks` MPI ranks where that is not 0; checks its exit code."""
        command = [self.executable, *map(str, arguments)]
        if ranks:
            command = [str(ROOT / "launch/mpirun.sh"), str(ranks), *command]
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout,
                                env=environment, cwd=ROOT)
        if expect is not None and result.returncode != expect:
            raise AssertionError(f"{' '.join(command)}\nexit code {result.returncode}, expected {expect}\n"
                                 f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
        return result

    def json(self, *arguments, **options):
        return json.loads(self.run(*arguments, "--json", **options).stdout)


def check(condition, message="") -> None:
    if not condition:
        raise AssertionError(message)


def close(a: float, b: float, tolerance: float) -> bool:
    return abs(a - b) <= tolerance


def write_tokenizer(path: pathlib.Path, merges: int = 300) -> None:
    """A byte-level tokenizer, trained on this folder's own Python files."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    texts = [file.read_text() for file in sorted(ROOT.glob("tests/**/*.py"))]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=257 + merges, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.save(str(path))
