"""What build/python's packages say they need is there: they are installed without asking (launch/setup.sh)."""
import importlib.metadata
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from packaging.requirements import Requirement  # noqa: E402

from tests.program import ROOT, check, run_cases  # noqa: E402

# Package, and what it needs that we do without.
LEFT_OUT = {
    "torch": None,                                 # anything: only its C++ libraries are used
    "tokenizers": {"huggingface-hub"},             # downloads tokenizers by name
    "tensorboard": {"tensorboard-data-server"},    # a faster reader of logs; without it TensorBoard reads them itself
}


def listed() -> dict[str, str]:
    lines = (ROOT / "launch/requirements.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_what_is_listed_is_installed():
    check(len(listed()) > 20, f"{listed()}")
    found = {name: importlib.metadata.version(name) for name in listed()}
    check(found == listed(), f"{found}, listed {listed()}")


def test_what_packages_require_is_installed_in_a_version_that_they_take():
    wrong = []
    for name in listed():
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            left_out = LEFT_OUT.get(name, set())
            if left_out is None or requirement.name in left_out or (
                    requirement.marker and not requirement.marker.evaluate({"extra": ""})):
                continue
            try:
                version = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                wrong.append(f"{name} needs {requirement}")
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{name} needs {requirement}, not {version}")
    check(not wrong, "\n".join(wrong))


def test_what_is_left_out_is_still_asked_for():
    for name, parts in LEFT_OUT.items():
        asked = {re.split(r"[^\w.-]", text)[0] for text in importlib.metadata.requires(name) or []}
        check((parts or set()) <= asked, f"{name} asks for {asked}")


if __name__ == "__main__":
    run_cases(globals())
