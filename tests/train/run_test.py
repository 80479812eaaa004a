"""Training runs from outside: stopping and going on bit for bit, refusing, saving on signals, NaN."""
import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.program import ROOT, Program, check, once, run_cases  # noqa: E402

TINY = "configs/tiny.yaml"
# What a step's line says of the run and not of the clock.
CLOCK = ("throughput/TPS", "throughput/device/TPS", "throughput/model FLOP/s", "throughput/seconds per step",
         "throughput/device/data loading (s)")


def metrics(folder: pathlib.Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK and "wait seconds" not in key}
            for line in lines]


def weights(folder: pathlib.Path, step: int) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / f"step-{step:07d}").glob("*.safetensors")}


COMMON = ["train.micro_batches=2", "schedule.warmup_steps=3"]


def train_whole(emo: Program, ranks: int, *overrides: str) -> pathlib.Path:
    """Twelve steps with checkpoints of the fifth, the tenth and the last."""
    whole = emo.folder / f"whole{ranks}"
    emo.run("train", TINY, f"run.folder={whole}", "train.steps=12", "checkpoint.every=5", *COMMON, *overrides, "--quiet",
            ranks=ranks)
    return whole


LAYOUTS = {0: [], 2: ["parallel.ep=2"], 4: ["parallel.ep=2"]}  # with 4 moments are cut over 4 and 2 ranks


def test_a_run_may_end_with_the_model_alone(emo):
    """checkpoint.last: model leaves nothing but the moments out, can be called again, evaluated and started from."""
    run, full = emo.folder / "model-alone", emo.folder / "model-and-moments"
    begin = ["train", TINY, "train.steps=4", "checkpoint.every=2", "checkpoint.keep=0", "--quiet"]
    emo.run(*begin, f"run.folder={run}", "checkpoint.last=model")
    emo.run(*begin, f"run.folder={full}")
    alone = {path.name for path in (run / "step-0000004").iterdir()}
    check(not any(name.startswith("optimizer") for name in alone), f"{alone}")
    check((run / "step-0000002/optimizer.safetensors.index.json").exists(), "a checkpoint on the way has no moments")
    check(weights(run, 4) == {name: data for name, data in weights(full, 4).items() if name.startswith("model")}, "weights")
    check("done" in emo.run(*begin, f"run.folder={run}", "checkpoint.last=model").stderr, "called again")
    constant = ["schedule.kind=constant", "train.steps=6"]
    held = emo.folder / "held"
    emo.run("train", TINY, "train.steps=4", "schedule.kind=constant", f"run.folder={held}", "checkpoint.last=model", "--quiet")
    said = emo.run("train", TINY, *constant, f"run.folder={held}", "--quiet", expect=64).stderr
    check("holds a model alone" in said and "run.start_from" in said, said)
    on = emo.folder / "from-the-model"
    emo.run("train", TINY, *constant, f"run.folder={on}", f"run.start_from={held}/step-0000004", "--quiet")
    said = emo.run("train", TINY, *constant, f"run.folder={on}-2", f"run.start_from={held}/step-0000004",
                   "run.take=weights_and_optimizer", "--quiet", expect=64).stderr
    check("holds a model alone" in said, said)


def test_run_seed_changes_every_seed_that_is_not_said(emo):
    config = emo.folder / "unsaid.yaml"
    config.write_text((ROOT / TINY).read_text().replace("  init_seed: 0\n", ""))

    def model(*overrides: str) -> dict[str, bytes]:
        run = emo.folder / f"seeds-{len(list(emo.folder.iterdir()))}"
        emo.run("train", config, f"run.folder={run}", "train.steps=1", "schedule.peak=0", *overrides, "--quiet")
        return {name: data for name, data in weights(run, 1).items() if name.startswith("model")}

    check(model("run.seed=5") == model("run.seed=6", "model.init_seed=5") != model("run.seed=6"), "the initial weights")


@once
def whole_of_one(emo: Program) -> pathlib.Path:
    return train_whole(emo, 0, "checkpoint.keep=0", *LAYOUTS[0])


@once
def whole_of_four(emo: Program) -> pathlib.Path:
    return train_whole(emo, 4, "checkpoint.keep=0", *LAYOUTS[4])


def resumes_bit_for_bit(emo: Program, whole: pathlib.Path, ranks: int) -> None:
    parts = emo.folder / f"parts{ranks}"
    # The rate depends on the length of the run, so it is stopped by removing what came after step 5.
    shutil.copytree(whole, parts)
    for later in (10, 12):
        shutil.rmtree(parts / f"step-{later:07d}", ignore_errors=True)
    if not (parts / "step-0000005").exists():
        emo_keep = [p.name for p in whole.glob("step-*")]
        raise AssertionError(f"no checkpoint of step 5 among {emo_keep}")
    result = emo.run("train", TINY, f"run.folder={parts}", "train.steps=12", "checkpoint.every=5", *COMMON,
                     "checkpoint.keep=0", *LAYOUTS[ranks], "--quiet", ranks=ranks)
    check("going on from" in result.stderr, result.stderr)
    check(metrics(whole) == metrics(parts), "metrics differ after resuming")
    check(len(metrics(parts)) == 12, "a step's line is missing or doubled")
    check(weights(whole, 12) == weights(parts, 12), "weights or moments differ after resuming")


def test_one_rank_resumes_bit_for_bit(emo):
    resumes_bit_for_bit(emo, whole_of_one(emo), 0)


def test_two_ranks_resume_bit_for_bit(emo):
    resumes_bit_for_bit(emo, train_whole(emo, 2, "checkpoint.keep=0", *LAYOUTS[2]), 2)


def test_four_ranks_resume_bit_for_bit(emo):
    resumes_bit_for_bit(emo, whole_of_four(emo), 4)


def test_threads_and_recomputation_change_no_bit(emo):
    for name, threads, recompute in [("one", 1, "none"), ("three", 3, "none"), ("again", 2, "block"),
                                     ("experts", 1, "moe")]:
        emo.run("train", TINY, f"run.folder={emo.folder / name}", "train.steps=6", "--quiet",
                f"parallel.recompute={recompute}", threads=threads)
        check(metrics(emo.folder / name) == metrics(emo.folder / "one"), f"metrics of {name} differ")
        check(weights(emo.folder / name, 6) == weights(emo.folder / "one", 6), f"weights of {name} differ")


def test_another_layout_goes_on_to_the_same_losses(emo):
    """From the same checkpoint, within rounding."""
    whole = whole_of_four(emo)
    for ranks, layout in [(0, []), (2, ["parallel.ep=1"]), (4, ["parallel.ep=4"]), (0, ["parallel.slices=3"])]:
        other = emo.folder / f"other{ranks}{len(layout)}"
        shutil.copytree(whole, other)
        for later in (10, 12):
            shutil.rmtree(other / f"step-{later:07d}")
        emo.run("train", TINY, f"run.folder={other}", "train.steps=12", *COMMON, "checkpoint.keep=0", "--quiet", *layout,
                ranks=ranks)
        for a, b in zip(metrics(other), metrics(whole), strict=True):
            check(abs(a["train/CE loss"] - b["train/CE loss"]) < 1e-4, f"step {a['step']} on another layout")


def test_a_config_that_changes_the_run_is_refused_with_the_key(emo):
    run = whole_of_one(emo)
    result = emo.run("train", TINY, f"run.folder={run}", "train.steps=12", "model.init_seed=7", *COMMON, expect=64)
    check("model.init_seed: was 0, is 7" in result.stderr, result.stderr)
    result = emo.run("train", TINY, f"run.folder={run}", "train.steps=12", "data.synthetic.seed=5", *COMMON, expect=64)
    check("data.synthetic" in result.stderr, result.stderr)


def test_a_damaged_checkpoint_is_refused_by_name(emo):
    damaged = emo.folder / "damaged"
    shutil.copytree(whole_of_one(emo), damaged)
    path = damaged / "step-0000012/model-00001-of-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    result = emo.run("train", TINY, f"run.folder={damaged}", "train.steps=14", *COMMON, expect=65)
    check("model-00001-of-00001.safetensors" in result.stderr, result.stderr)


def test_a_new_run_starts_from_a_checkpoint(emo):
    """From weights alone, and with another contract only when it is meant."""
    start = [f"run.start_from={whole_of_one(emo)}/step-0000012", "train.steps=2", "--quiet"]
    emo.run("train", TINY, f"run.folder={emo.folder}/tuned", *start)
    result = emo.run("train", TINY, f"run.folder={emo.folder}/anneal", *start, "routing.pool=none", expect=64)
    check("routing.pool" in result.stderr and "change_contract" in result.stderr, result.stderr)
    emo.run("train", TINY, f"run.folder={emo.folder}/anneal", *start, "routing.pool=none",
            "run.change_contract=true")


def test_numbers_that_are_not_finite_end_the_run(emo):
    """With 77, naming step and tensor."""
    result = emo.run("train", TINY, f"run.folder={emo.folder}/nan", "schedule.peak=1e3", "train.clip=0",
                     "schedule.warmup_steps=0", "train.lm_z_weight=1e30", expect=77)
    check("first bad tensor" in result.stderr and "step " in result.stderr, result.stderr)


def wait_for_steps(run: pathlib.Path) -> None:
    log = run / "metrics.jsonl"
    deadline = time.time() + 60
    while time.time() < deadline and not (log.exists() and log.read_text().count("\n") > 3):
        time.sleep(0.1)


def test_a_signal_lets_the_step_end_and_saves(emo):
    """It exits with 75; the same command goes on."""
    command = [emo.executable, "train", TINY, f"run.folder={emo.folder}/stopped", "train.steps=100000",
               "schedule.kind=constant", "--quiet"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for_steps(emo.folder / "stopped")
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    check(process.returncode == 75, f"exit code {process.returncode} after SIGTERM")
    steps = len(metrics(emo.folder / "stopped"))
    check((emo.folder / f"stopped/step-{steps:07d}/MANIFEST").exists(), "no checkpoint after SIGTERM")
    emo.run("train", TINY, f"run.folder={emo.folder}/stopped", f"train.steps={steps + 2}",
            "schedule.kind=constant", "--quiet")
    check([m["step"] for m in metrics(emo.folder / "stopped")] == list(range(1, steps + 3)), "steps after going on")


def test_under_mpirun_a_signal_reaches_every_rank_and_kills_none(emo):
    command = [str(ROOT / "launch/mpirun.sh"), "2", emo.executable, "train", TINY, "parallel.ep=2",
               f"run.folder={emo.folder}/stopped2", "train.steps=100000", "schedule.kind=constant", "--quiet"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_for_steps(emo.folder / "stopped2")
    process.send_signal(signal.SIGUSR1)
    check(process.wait(timeout=60) == 75, f"exit code {process.returncode} after SIGUSR1 to mpirun")
    check(list((emo.folder / "stopped2").glob("step-*/MANIFEST")), "no checkpoint after SIGUSR1 to mpirun")


def rates(folder: pathlib.Path) -> dict[int, float]:
    return {line["step"]: line["optim/LR"] for line in metrics(folder)}


ANNEAL = ["run.take=all", "schedule.kind=linear", "schedule.start=checkpoint", "schedule.final_fraction=0", "train.steps=16",
          "train.micro_batches=2", "checkpoint.every=3", "checkpoint.keep=0", "--quiet"]


def test_an_anneal_goes_from_the_checkpoints_rate_to_nothing(emo):
    """And is the same when it is stopped and goes on."""
    parent = whole_of_one(emo) / "step-0000010"
    begin = json.loads((parent / "state.json").read_text())["learning_rate"]
    check(abs(begin - rates(whole_of_one(emo))[10]) < 1e-12, f"{begin}")
    whole = emo.folder / "line"
    emo.run("train", TINY, f"run.folder={whole}", f"run.start_from={parent}", *ANNEAL)
    for step, rate in rates(whole).items():
        check(abs(rate - begin * (16 - step) / (16 - 10)) < 1e-12, f"step {step}: {rate}")
    check(sorted(rates(whole)) == list(range(11, 17)) and rates(whole)[16] == 0, f"{rates(whole)}")
    parts = emo.folder / "line-parts"
    parts.mkdir()
    shutil.copytree(whole / "step-0000012", parts / "step-0000012")
    emo.run("train", TINY, f"run.folder={parts}", f"run.start_from={parent}", *ANNEAL)
    check(metrics(parts) == metrics(whole)[2:] and weights(parts, 16) == weights(whole, 16), "another after it was stopped")


def test_an_anneal_needs_a_rate_and_a_step(emo):
    parent = whole_of_one(emo) / "step-0000010"
    without = [argument for argument in ANNEAL if argument != "run.take=all"]
    error = emo.run("train", TINY, f"run.folder={emo.folder}/no", f"run.start_from={parent}", *without, expect=64).stderr
    check("run.take all" in error, error)
    old = emo.folder / "old"
    shutil.copytree(parent, old)
    state = json.loads((old / "state.json").read_text())
    del state["learning_rate"]
    (old / "state.json").write_text(json.dumps(state))
    manifest = json.loads((old / "MANIFEST").read_text())
    content = (old / "state.json").read_bytes()
    for file in manifest["files"]:
        if file["name"] == "state.json":
            file |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (old / "MANIFEST").write_text(json.dumps(manifest))
    error = emo.run("train", TINY, f"run.folder={emo.folder}/no", f"run.start_from={old}", *ANNEAL, expect=64).stderr
    check("does not say its learning rate" in error, error)


def test_going_on_in_other_data_must_be_meant(emo):
    parent = whole_of_one(emo) / "step-0000010"
    onward = ["train", TINY, f"run.start_from={parent}", "run.take=all", "train.steps=13", "train.micro_batches=2", "--quiet"]
    for override, hint in (("data.synthetic.seed=5", "its contents are not those"), ("data.order=sequential", "data.order"),
                           ("run.seed=9", "run.seed"), ("data.seed=4", "data.seed")):
        error = emo.run(*onward, f"run.folder={emo.folder}/other", override, expect=64).stderr
        check(hint in error and "run.change_data=true" in error, f"{override}: {error}")
        emo.run(*onward, f"run.folder={emo.folder}/meant-{hint[:4]}-{override[-1]}", override, "run.change_data=true")


if __name__ == "__main__":
    run_cases(globals())
