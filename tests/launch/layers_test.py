"""Folders are layers: reads every #include and fails on one that points the wrong way; and the other
rules of the tree that a machine can check."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALLOWED = {
    "data": {"data"},
    "parallel": {"parallel"},
    "model": {"model", "parallel"},
    "train": {"train", "data", "model", "parallel"},
    "eval": {"eval", "train", "data", "model", "parallel"},
    "launch": {"launch", "eval", "train", "data", "model", "parallel"},
}
OWN_HEADERS = {"mpi.h": "parallel/mpi_communicator.cc", "nccl.h": "parallel/nccl_communicator.cc",
               "CLI/CLI.hpp": "launch/command_line.cc", "nlohmann/json.hpp": "data/files/json.h"}
STAND_IN = ("tests", "nccl_stand_in")  # implements NCCL over MPI
MOST_LINES = 600
BACK_ENDS = ("model/host", "model/device")
READ_YAML = ("train/config/yaml_file.h", "data/mix/mix_yaml.cc")
ONCE = {"transformer", "block", "moe_layer", "losses", "inference", "step"}  # defined above the back ends


def room(name: pathlib.PurePath) -> str:
    """A folder inside a layer is a room; so is a file (with its header) that stands in the layer itself."""
    return "/".join(name.parts[:2]) if len(name.parts) > 2 else str(name.with_suffix(""))


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """The rooms that reach themselves, each with the next room on its way."""
    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            for following in arrows.get(ahead.pop(), set()) - seen:
                seen.add(following)
                ahead.append(following)
        return seen
    return [f"{start} -> {following}: a circle of rooms" for start in sorted(arrows)
            for following in sorted(arrows[start]) if start in reach(following)]


def main() -> None:
    wrong = []
    arrows: dict[str, set[str]] = {}
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    sources = [ROOT / name for name in files if name.endswith((".cc", ".h", ".cu", ".py"))]
    sources = [path for path in sources if path.exists()]
    assert len(sources) > 50, "git ls-files lists no sources"
    for path in sources:
        name = path.relative_to(ROOT)
        text = path.read_text()
        if text.count("\n") > MOST_LINES:
            wrong.append(f"{name}: {text.count(chr(10))} lines, at most {MOST_LINES}")
        if re.search(r"(^|/)(utils?|common|helpers?|misc)(\.|/|$)", str(name)):
            wrong.append(f"{name}: a name that says nothing")
        if str(name.parent) in BACK_ENDS and name.stem in ONCE:
            wrong.append(f"{name}: a back end has operations only (model/backend.h)")
        allowed = ALLOWED.get(name.parts[0])
        for included in re.findall(r'^#include "([^"]+)"', text, re.M) if allowed is not None else ():
            to = room(pathlib.PurePath(included))
            if to != room(name) and included.split("/")[0] != "absl":
                arrows.setdefault(room(name), set()).add(to)
        for quoted, angled in re.findall(r'^#include (?:"([^"]+)"|<([^>]+)>)', text, re.M):
            if quoted and allowed is not None and quoted.split("/")[0] not in allowed | {"absl"}:
                wrong.append(f"{name}: includes {quoted}")
            if quoted.startswith(BACK_ENDS) and str(name.parent) == "model" and quoted != "model/host/backend.h":
                wrong.append(f"{name}: includes {quoted}; the model knows operations, not back ends")
            if angled in OWN_HEADERS and str(name) != OWN_HEADERS[angled] and name.parts[:2] != STAND_IN:
                wrong.append(f"{name}: includes {angled}, which only {OWN_HEADERS[angled]} may")
            if name.parts[0] == "data" and angled.startswith(("ATen", "torch", "c10", "mpi")):
                wrong.append(f"{name}: includes {angled}; data/ knows no torch and no MPI")
            if angled.startswith("yaml-cpp") and str(name) not in READ_YAML:
                wrong.append(f"{name}: YAML is parsed in {' and '.join(READ_YAML)} only")
    wrong += circles(arrows)
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(sources)} files keep to their layers; {sum(map(len, arrows.values()))} arrows between rooms")


if __name__ == "__main__":
    main()
