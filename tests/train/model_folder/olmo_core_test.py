"""launch/import_olmo_core.py: a checkpoint in OLMo-core's layout, sharded over two processes by
torch.distributed.checkpoint, comes back bit for bit, moments included, and training goes on from it."""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import numpy
from safetensors.numpy import load_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import ROOT, Program, check, once, run_cases  # noqa: E402

ENVIRONMENT = dict(os.environ, LD_LIBRARY_PATH=str(ROOT / "build/absent-cuda"), OMP_NUM_THREADS="1",
                   PYTHONPATH=str(ROOT / "build/transformers-5"))


def tensors_of(folder):
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(str(path))
    return tensors


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def write_olmo_core(source, target, tokens_per_step):
    port = free_port()
    processes = [subprocess.Popen([sys.executable, str(ROOT / "tests/train/model_folder/olmo_core_side.py"), str(source), str(target),
                                   str(rank), port, str(tokens_per_step)], env=ENVIRONMENT) for rank in (0, 1)]
    check([p.wait(timeout=200) for p in processes] == [0, 0], "writing OLMo-core's layout")
    check(len(list((target / "model_and_optim").glob("*.distcp"))) > 1, "it is not sharded")


def convert(*arguments, expect=0):
    result = subprocess.run([sys.executable, str(ROOT / "launch/import_olmo_core.py"), *map(str, arguments)],
                            env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    check((result.returncode == 0) == (expect == 0), result.stdout + result.stderr)
    return result.stdout + result.stderr


TRAIN = ["train", "configs/tiny.yaml", "model.dense_layers=[1]", "model.d_ffn=96", "schedule.kind=constant",
         "checkpoint.every=4", "checkpoint.keep=0", "--quiet"]


@once
def trained(emo: Program) -> pathlib.Path:
    emo.run(*TRAIN, f"run.folder={emo.folder}/run", "train.steps=8")
    return emo.folder / "run"


def state_of(folder: pathlib.Path) -> dict:
    return json.loads((folder / "state.json").read_text())


@once
def there(emo: Program) -> pathlib.Path:
    """The checkpoint of the fourth step in OLMo-core's layout."""
    subprocess.run([str(ROOT / "launch/setup_transformers.sh")], check=True)
    source = trained(emo) / "step-0000004"
    write_olmo_core(source, emo.folder / "step4", state_of(source)["tokens"] // 4)
    return emo.folder / "step4"


@once
def here(emo: Program) -> pathlib.Path:
    """And back."""
    print(convert(there(emo), emo.folder / "here").strip())
    return emo.folder / "here"


def test_it_comes_back_bit_for_bit(emo):
    source = trained(emo) / "step-0000004"
    before, after = tensors_of(source), tensors_of(here(emo))
    check(set(before) == set(after), f"names: {sorted(set(before) ^ set(after))[:5]}")
    for name, tensor in before.items():
        check(tensor.shape == after[name].shape and numpy.array_equal(tensor, after[name]), f"{name} differs")
    check(any(numpy.abs(t).max() > 0 for n, t in after.items() if n.startswith("exp_avg/")), "moments are zero")
    found, state = state_of(here(emo)), state_of(source)
    check([found[k] for k in ("step", "tokens", "sequences")] == [state[k] for k in ("step", "tokens", "sequences")],
          f"{found}")
    check(found["learning_rate"] == 0.1, f"{found}")


def test_training_goes_on_from_it(emo):
    again = emo.folder / "again"
    onward = [*TRAIN, f"run.folder={again}", f"run.start_from={here(emo)}", "run.take=all", "train.steps=8"]
    check("not stated" in emo.run(*onward, expect=64).stderr, "the contract is unstated")
    emo.run(*onward, "run.change_contract=true")
    wanted, got = tensors_of(trained(emo) / "step-0000008"), tensors_of(again / "step-0000008")
    for name, tensor in wanted.items():
        check(numpy.array_equal(tensor, got[name]), f"going on from it computes another {name}")


def test_nothing_is_overwritten(emo):
    check("stands already" in convert(there(emo), here(emo), expect=1), "overwriting")


def test_sizes_that_are_not_known_are_asked_for(emo):
    bare = emo.folder / "bare/step4"
    shutil.copytree(there(emo), bare, ignore=shutil.ignore_patterns("config.json"))
    error = convert(bare, emo.folder / "no", expect=1)
    check(all(f"--{name}" in error for name in ("heads", "top-k", "shared", "eos", "sequence-length")), error)
    check(not (emo.folder / "no").exists(), "something was left behind")


if __name__ == "__main__":
    run_cases(globals())
