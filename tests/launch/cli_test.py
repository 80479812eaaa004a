"""The command line: help with an example for every command, exit codes, suggestions."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.launch.documents_test import COMMANDS  # noqa: E402
from tests.program import ROOT, check, run_cases  # noqa: E402


def test_every_command_s_help_has_an_example(emo):
    for command in COMMANDS:
        help_text = emo.run(*command.split(), "--help").stdout
        check("Example: " in help_text, f"{command}: no example in --help")


def test_emo_help_lists_every_command(emo):
    listed = emo.run("--help").stdout
    for command in COMMANDS:
        check(f"  {command.split()[0]} " in listed, f"{command} is not in emo --help")


def test_exit_codes_are_told_in_one_way(emo):
    listed = emo.run("--help").stdout
    codes = " ".join(listed[listed.index("Exit codes:"):].split())
    check(codes in (ROOT / "docs/config.md").read_text(), f"docs/config.md does not say: {codes}")


def test_wrong_usage_ends_with_64_and_a_hint(emo):
    for arguments, hint in [
            (["trian", "x.yaml"], "did you mean 'train'?"),
            (["train", "configs/tiny.yaml", "--quite"], "did you mean '--quiet'?"),
            (["experts", "rnk"], "did you mean 'rank'?"),
            (["train"], "CONFIG"), ([], "subcommand"),
            (["eval", "somewhere"], "--data"),
            (["bench", "step", "configs/tiny.yaml", "--steps", "0"], "--steps"),
            (["train", "configs/tiny.yaml", "model.d_modle=3"], "did you mean 'model.d_model'?")]:
        result = emo.run(*arguments, expect=64)
        check(hint in result.stderr, f"{arguments}: no hint {hint!r} in {result.stderr!r}")
        check(result.stdout == "", f"{arguments}: wrote to standard output")


def test_missing_inputs_end_with_66(emo):
    emo.run("train", "nowhere.yaml", expect=66)
    emo.run("eval", emo.folder, "--data", emo.folder, expect=66)
    emo.run("check", emo.folder, expect=66)


def test_a_layout_that_is_not_the_world_s(emo):
    result = emo.run("train", "configs/tiny.yaml", "parallel.ep=2", expect=64)
    check("is not the world's 1 rank" in result.stderr, result.stderr)
    result = emo.run("check", "tests/golden/emo_a", "--dp", "3", ranks=2, expect=64)
    check(result.stderr.count("is not the world's") == 1, "an error is printed once, not on every rank")


def test_a_folder_that_cannot_be_written(emo):
    check(emo.run("train", "configs/tiny.yaml", "run.folder=/proc/nowhere", expect=None).returncode == 73,
          "a folder that cannot be written")


def test_emo_isa_limits_what_version_says_is_chosen(emo):
    # Training agrees to rounding.
    losses = {}
    for instructions in ("portable", "avx2", ""):  # the last: what this CPU has
        environment = {"EMO_ISA": instructions}
        version = emo.run("--version", environment=environment).stdout.splitlines()
        check(version[0].startswith("emo "), f"{version}")
        chosen = dict(line.split(": ") for line in version[1:])
        check(list(chosen) == ["instructions", "fp32 products", "bf16 products"], f"{version}")
        if instructions:
            check(chosen == {"instructions": instructions, "fp32 products": "MKL", "bf16 products": "plain loops"},
                  f"EMO_ISA={instructions}: {version}")
        folder = f"{emo.folder}/isa-{instructions}"
        emo.run("train", "configs/tiny.yaml", f"run.folder={folder}", "train.steps=1", "--quiet",
                environment=environment)
        step = json.loads(pathlib.Path(folder, "metrics.jsonl").read_text().splitlines()[0])
        losses[instructions] = step["train/CE loss"]
    check(max(losses.values()) - min(losses.values()) < 1e-6, f"losses differ: {losses}")
    result = emo.run("--version", environment={"EMO_ISA": "sse"}, expect=64)
    check("expected portable, avx2 or avx512" in result.stderr, result.stderr)


if __name__ == "__main__":
    run_cases(globals())
