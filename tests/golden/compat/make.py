"""Makes a folder of what a version of the program writes: prepared data, checkpoints, a subset, a cut
model and a tuned cut model, with what they must give. Later versions read and resume all of it
(tests/train/compat_test.py).

Example: make.py build/release/emo tests/golden/compat/0.1.0
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
CONFIG = """run: {folder: run, seed: 3}
model: {vocab_size: 320, d_model: 16, n_layers: 2, n_heads: 2, d_expert: 8, num_experts: 9, top_k: 3, init_std: 0.1}
routing: {pool: {min: 2, max: 8}, balance_weight: 0.02}
data: {path: data/train, sequence_length: 64}
train: {steps: 6, batch: 4, micro_batches: 2}
schedule: {kind: constant, peak: 1e-2, warmup_steps: 2}
checkpoint: {every: 0}
"""
TUNING = ["run.start_from=cut", "model.num_experts=5", "model.top_k=3", "routing.pool=none", "run.change_contract=true",
          "run.seed=4", "schedule.peak=1e-3", "train.freeze=routed"]
# name: ranks, overrides of the config
RUNS = {"one": (1, []), "ep2": (2, ["parallel.ep=2"]),
        "device": (1, ["parallel.device=emulated", "parallel.precision=bf16"]), "tuned": (1, TUNING)}


def emo(program: str, folder: pathlib.Path, *arguments, ranks: int = 1) -> str:
    command = [program, *map(str, arguments)]
    if ranks > 1:
        command = [str(ROOT / "launch/mpirun.sh"), str(ranks), *command]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True,
                            env=dict(os.environ, OMP_NUM_THREADS="1"))
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{result.stderr}")
    return result.stdout


def documents() -> list[dict]:
    """Paragraphs of our own documents, and lines of our configs."""
    paragraphs = []
    for name in ("concepts", "experts", "checkpoint"):
        for text in re.split(r"\n\n+", (ROOT / f"docs/{name}.md").read_text()):
            if 200 < len(text) < 700:
                paragraphs.append({"text": text, "source": "prose"})
    for path in sorted(ROOT.glob("configs/*.yaml")):
        for text in re.split(r"(?m)^(?=[a-z])", path.read_text()):
            if 60 < len(text) < 700:
                paragraphs.append({"text": text, "source": "configs"})
    return paragraphs[:80]


def prepare(program: str, folder: pathlib.Path) -> None:
    (folder / "documents.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents()))
    subprocess.run([ROOT / "build/python/bin/python", ROOT / "launch/train_tokenizer.py", "documents.jsonl", "320",
                    "tokenizer.json"], cwd=folder, check=True)
    for split in ("train", "test"):
        emo(program, folder, "prepare", "--tokenizer", "tokenizer.json", "--output", f"data/{split}", "documents.jsonl")


def metrics(folder: pathlib.Path, run: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
    keep = ("step", "train/CE loss", "optim/total grad norm", "train/load balancing loss", "train/router Z loss")
    return [{key: line[key] for key in keep if key in line} for line in lines]


def losses(program: str, folder: pathlib.Path, model: str, *options) -> dict:
    report = json.loads(emo(program, folder, "eval", model, "--data", "data/test", "--json", *options))
    return {label: source["loss"] for label, source in report["sources"].items()}


def train(program: str, folder: pathlib.Path, run: str) -> dict:
    """Six steps whose checkpoint stays; two more, from a copy, are what it must go on with."""
    ranks, overrides = RUNS[run]
    emo(program, folder, "train", "config.yaml", f"run.folder={run}", *overrides, ranks=ranks)
    if run == "one":
        emo(program, folder, "experts", "rank", "one/step-0000006", "--data", "data/test", "--label", "configs",
            "--keep", "5", "--output", "subset.json")
        emo(program, folder, "experts", "extract", "one/step-0000006", "subset.json", "cut")
    shutil.copytree(folder / run, folder / "next")
    emo(program, folder, "train", "config.yaml", "run.folder=next", *overrides, "train.steps=8", ranks=ranks)
    answer = {"ranks": ranks, "overrides": overrides, "losses": losses(program, folder, f"{run}/step-0000006"),
              "steps": metrics(folder, "next")[6:]}
    shutil.rmtree(folder / "next")
    for extra in ("tb", "metrics.jsonl", "config.yaml"):
        path = folder / run / extra
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("emo", help="a program of the version")
    parser.add_argument("out", type=pathlib.Path, help="folder to make; must not stand yet")
    options = parser.parse_args()
    program, folder = os.path.abspath(options.emo), options.out
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    prepare(program, folder)
    runs = {run: train(program, folder, run) for run in RUNS}
    expected = {"version": emo(program, folder, "--version").strip(), "runs": runs,
                "cut": losses(program, folder, "cut"),
                "subset": losses(program, folder, "one/step-0000006", "--experts", "subset.json")}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
