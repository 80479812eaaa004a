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


def metrics_of(run: pathlib.Path) -> dict[int, dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines}


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
    onward = [*TRAIN, f"run.folder={again}", f"run.start_from={here(emo)}", "run.take=all", "train.steps=8",
              "run.change_data=true"]
    check("not stated" in emo.run(*onward, expect=64).stderr, "the contract is unstated")
    emo.run(*onward, "run.change_contract=true")
    wanted, got = tensors_of(trained(emo) / "step-0000008"), tensors_of(again / "step-0000008")
    for name, tensor in wanted.items():
        check(numpy.array_equal(tensor, got[name]), f"going on from it computes another {name}")


def test_an_anneal_goes_on_at_its_place_in_the_references_order(emo):
    """A run on token files in the reference's order, in OLMo-core's layout and back: the anneal's first step sees the
    rows that the run's own fifth step saw, and its rate goes from the checkpoint's to 0 (emo-facts 3.2)."""
    files = emo.folder / "files"
    files.mkdir()
    for number, tokens in enumerate((60_000, 90_001, 8_000)):
        ids = numpy.random.default_rng(number).integers(1, 256, tokens)
        ids[::37] = 0
        ids.astype(numpy.uint8).tofile(files / f"{number}.npy")
    (files / "mix.txt").write_text("a,0.npy\nb,1.npy\na,0.npy\nb,2.npy\n")
    data = ["data.synthetic=none", f"data.mix={files}/mix.txt", "data.eos_id=0", "data.order=reference", "data.seed=3",
            "data.sequence_length=128"]
    emo.run(*TRAIN, *data, f"run.folder={emo.folder}/source", "train.steps=8")
    source = emo.folder / "source/step-0000004"
    (emo.folder / "olmo").mkdir()
    write_olmo_core(source, emo.folder / "olmo/step4", state_of(source)["tokens"] // 4)
    check("its data has seed 3" in convert(emo.folder / "olmo/step4", emo.folder / "imported"), "the seed")
    for name, ranks in (("anneal", 0), ("anneal-two", 2)):
        emo.run(*TRAIN, *data, f"run.folder={emo.folder / name}", f"run.start_from={emo.folder}/imported", "run.take=all",
                "run.change_contract=true", "train.steps=12", "schedule.kind=linear", "schedule.start=checkpoint",
                "schedule.final_fraction=0", ranks=ranks)
        own, annealed = metrics_of(emo.folder / "source"), metrics_of(emo.folder / name)
        check(list(annealed) == list(range(5, 13)), f"steps {list(annealed)}")
        tolerance = 1e-5 if ranks else 0
        for key in ("train/CE loss", "train/Z loss"):
            check(abs(annealed[5][key] - own[5][key]) <= tolerance, f"{name} {key}: {annealed[5][key]} {own[5][key]}")
        rates = [annealed[step]["optim/LR"] for step in range(5, 13)]
        check(numpy.allclose(rates, [0.1 * (12 - step) / 8 for step in range(5, 13)], rtol=1e-12, atol=0), f"{rates}")
    error = emo.run(*TRAIN, *data[:3], "data.sequence_length=128", f"run.folder={emo.folder}/lost",
                    f"run.start_from={emo.folder}/imported", "run.take=all", "run.change_contract=true", "train.steps=12",
                    expect=64).stderr
    check("data.order: was reference, is ours" in error and "data.seed: was 3" in error, error)
    error = convert(emo.folder / "olmo/step4", emo.folder / "other", "--tokens-per-step", 512, expect=1)
    check("its loader has given" in error, error)


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
