"""What the quick start leaves: its retention.json has the keys that scripts read, and numbers that can be; every path
that its report, documents and --help texts name is there.

Usage: quickstart_report_test.py EMO FOLDER        with the folder in which the quick start ran
"""
import json
import math
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.launch.documents_test import paths_after_the_quick_start  # noqa: E402
from tests.program import check, run_cases  # noqa: E402

FOLDER = pathlib.Path(sys.argv.pop(2))

CUTS = {(method, keep, weights) for method in ("router", "random") for keep in (0.25, 0.125)
        for weights in ("kept", "full")}


def check_numbers(numbers: dict, where: str) -> None:
    for key in ("full", "no_routed_experts"):
        assert 0 < numbers[key] < 12, f"{where}: {key} is {numbers[key]}"
    cuts = {(cut["method"], cut["keep"], cut["weights"]): cut for cut in numbers["cuts"]}
    assert set(cuts) == CUTS and len(numbers["cuts"]) == len(CUTS), f"{where}: {numbers['cuts']}"
    for cut in cuts.values():
        assert math.isfinite(cut["loss"]), f"{where}: {cut}"
        assert abs(cut["loss"] - numbers["full"] - cut["increase"]) < 1e-9, f"{where}: {cut}"
        assert (cut["documents"], cut["calibrated_on"]) == ("all", "own"), f"{where}: {cut}"


def test_the_report_has_numbers_that_can_be():
    report = json.loads((FOLDER / "retention.json").read_text())
    assert set(report) == {"emo", "standard"}, set(report)
    for model, numbers in report.items():
        check_numbers(numbers, model)
        assert len(numbers["domains"]) >= 8, f"{model}: {len(numbers['domains'])} domains"
        for label, domain in numbers["domains"].items():
            check_numbers(domain, f"{model}, {label}")
        mean = sum(domain["full"] for domain in numbers["domains"].values()) / len(numbers["domains"])
        assert abs(mean - numbers["full"]) < 1e-9, "the mean over domains is not the mean"


def test_what_the_report_names_is_there():
    named = re.findall(rf"(?<![\w/]){re.escape(str(FOLDER))}(?:/[\w./*-]*\w)?", (FOLDER / "report.txt").read_text())
    check(len(named) > 8, f"{named}")
    missing = [name for name in named if not list(pathlib.Path().glob(name))]
    check(not missing, f"{missing}")


def test_what_documents_and_help_texts_name_is_there(emo):
    named = paths_after_the_quick_start(emo)
    missing = [f"{where}: runs/quickstart/{name}" for name, where in named.items() if not list(FOLDER.glob(name))]
    check(named and not missing, "\n".join(missing))


def test_the_next_commands_run(emo):
    """Those of the report that leave nothing but what is in a temporary folder."""
    text = (FOLDER / "report.txt").read_text().replace("scripture.json", str(emo.folder / "scripture.json"))
    commands = re.findall(r"^  \S*/emo ((?:experts rank|eval|data show).*)$", text[text.index("Next:"):], re.M)
    check(len(commands) == 4, f"{commands}")
    for command in commands:
        emo.run(*command.split(), *(["--limit", 4] if "--tasks" in command else []))


if __name__ == "__main__":
    run_cases(globals())
