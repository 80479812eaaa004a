"""What earlier versions of the program wrote is read and resumed: every folder of tests/golden/compat/ (made by
make.py there), with the losses and the next steps that its own version had."""
import json
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.program import ROOT, Program, check, run_cases  # noqa: E402

# A choice of experts that is a tie within rounding may fall otherwise on another CPU, which moves a loss by less.
TOLERANCE = 3e-4


def near(found: float, expected: float, tolerance: float) -> bool:
    return abs(found - expected) <= tolerance * abs(expected)


def compare_losses(emo: Program, folder: pathlib.Path, model: str, expected: dict, *options) -> None:
    report = emo.json("eval", folder / model, "--data", folder / "data/test", *options)
    for label, loss in expected.items():
        found = report["sources"][label]["loss"]
        check(near(found, loss, TOLERANCE), f"{model} {options}: {label} {found}, {loss} when it was written")


def compare_steps(emo: Program, folder: pathlib.Path, run: str, expected: dict, ranks: int) -> None:
    """Goes on from a copy of the run's folder, as the same command would have."""
    copy = emo.folder / f"{folder.name}-{run}-{ranks}"
    shutil.copytree(folder / run, copy)
    overrides = [o.replace("start_from=cut", f"start_from={folder / 'cut'}") for o in expected["overrides"]]
    if ranks == 1:
        overrides = [o for o in overrides if not o.startswith("parallel.ep")]
    # A folder that was moved is another place of the same data, not other data.
    emo.run("train", folder / "config.yaml", f"run.folder={copy}", f"data.path={folder / 'data/train'}", *overrides,
            "train.steps=8", "--quiet", ranks=ranks if ranks > 1 else 0)
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    check([line["step"] for line in lines] == [7, 8], f"{run}: went on with steps {[line['step'] for line in lines]}")
    tolerance = 3e-2 if run == "device" else 20 * TOLERANCE  # of norms, and of losses after an update
    for line, step in zip(lines, expected["steps"]):
        for key, value in step.items():
            if key != "step":
                check(near(line[key], value, tolerance), f"{run}, step {line['step']}: {key} {line[key]}, was {value}")
    check(near(lines[0]["train/CE loss"], expected["steps"][0]["train/CE loss"], 1e-2 if run == "device" else TOLERANCE),
          f"{run}: loss {lines[0]['train/CE loss']}, was {expected['steps'][0]['train/CE loss']}")


def versions():
    """Each folder with what it must give."""
    folders = sorted(path for path in (ROOT / "tests/golden/compat").iterdir() if path.is_dir())
    check(folders, "no folder of an earlier version")
    for folder in folders:
        yield folder, json.loads((folder / "expected.json").read_text())


def test_checkpoints_have_the_losses_that_they_had(emo):
    for folder, expected in versions():
        for run, values in expected["runs"].items():
            compare_losses(emo, folder, f"{run}/step-0000006", values["losses"])


def test_runs_go_on_as_they_would_have(emo):
    for folder, expected in versions():
        for run, values in expected["runs"].items():
            for ranks in {1, 2, values["ranks"]} if run != "device" else {values["ranks"]}:
                compare_steps(emo, folder, run, values, ranks)


def test_cut_models_and_subsets_have_the_losses_that_they_had(emo):
    for folder, expected in versions():
        compare_losses(emo, folder, "cut", expected["cut"])
        # The subset knows its model by the identity that was computed then.
        compare_losses(emo, folder, "one/step-0000006", expected["subset"], "--experts", folder / "subset.json")


def test_tuned_experts_are_put_back(emo):
    for folder, _ in versions():
        merged = emo.folder / f"{folder.name}-merged"
        emo.run("experts", "merge", folder / "one/step-0000006", folder / "tuned/step-0000006", merged)
        check(emo.json("eval", merged, "--data", folder / "data/test")["loss"] > 0, "the merged model")


if __name__ == "__main__":
    run_cases(globals())
