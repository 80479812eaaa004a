"""What documents, --help texts and comments say against what is there: keys and defaults of a config, metrics, files
of the source, commands with their options, what the quick start leaves."""
import functools
import json
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.program import ROOT, Program, check, once, run_cases  # noqa: E402

COMMANDS = ["prepare", "data show", "data check", "data order", "train", "sweep", "eval", "generate", "experts usage", "experts rank", "experts extract",
            "experts merge", "experts compare", "experts retention", "experts place", "export", "import", "logits",
            "check", "bench step", "bench data", "bench exchange"]
# What a config must say, and nothing else.
LEAST = ("run: {folder: FOLDER}\nmodel: {vocab_size: 256, d_model: 16, n_layers: 1, n_heads: 2, d_expert: 8, num_experts: 128, "
         "top_k: 3}\ndata: {synthetic: {vocab_size: 256}}\ntrain: {steps: 1, batch: 1}\n")
GIVEN = {"run.folder", "model.vocab_size", "model.d_model", "model.n_layers", "model.n_heads", "model.d_expert",
         "model.num_experts", "model.top_k", "data.synthetic", "train.steps", "train.batch"}


@functools.cache
def tracked() -> list[pathlib.PurePath]:
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout.splitlines()
    return [pathlib.PurePath(name) for name in listed if (ROOT / name).exists()]


def documents() -> dict[str, str]:
    found = {str(path): (ROOT / path).read_text() for path in tracked() if path.suffix == ".md"}
    check(len(found) > 10 and "README.md" in found, str(list(found)))
    return found


@once
def help_texts(emo: Program) -> dict[str, str]:
    return {command: emo.run(*command.split(), "--help").stdout for command in COMMANDS}


def test_these_are_all_commands(emo):
    """Else the other cases look at fewer than there are."""
    shown = emo.run("--help").stdout
    names = re.findall(r"^  ([a-z]+) ", shown[shown.lower().index("subcommands"):], re.M)
    check({command.split()[0] for command in COMMANDS} == set(names), f"{names}")
    for group in {command.split()[0] for command in COMMANDS if " " in command}:
        shown = emo.run(group, "--help").stdout
        names = re.findall(r"^  ([a-z]+) ", shown[shown.lower().index("subcommands"):], re.M)
        expected = {command.split()[1] for command in COMMANDS if command.startswith(group + " ")}
        check(expected <= set(names), f"{group}: {names}")


@once
def printed_config(emo: Program) -> dict[str, str]:
    """section.key: value, as `emo train` prints it at its start."""
    path = emo.folder / "least.yaml"
    path.write_text(LEAST.replace("FOLDER", str(emo.folder / "least")))
    said = emo.run("train", path).stderr
    text = (emo.folder / "least/config.yaml").read_text()
    check(text in said, f"not what was printed: {said}")
    config, section = {}, ""
    for line in text.splitlines():
        key, _, value = line.strip().partition(":")
        if line.startswith("  "):
            config[f"{section}.{key}"] = value.strip()
        else:
            section = key
    check(len(config) > 50, f"{config}")
    return config


def config_table() -> list[tuple[list[str], str]]:
    """Of every row of docs/config.md its keys, with their section, and the cell of defaults."""
    rows = []
    lines = (ROOT / "docs/config.md").read_text().splitlines()
    for cell, default in (line.split("|")[1:3] for line in lines if line.startswith("| `")):
        keys: list[str] = []
        for name in re.findall(r"`([a-z_0-9.]+)`", cell):
            keys.append(name if "." in name else keys[-1].split(".")[0] + "." + name)
        rows.append((keys, default))
    check(len(rows) > 40, f"{rows}")
    return rows


def test_every_key_of_a_printed_config_is_described_and_the_other_way_round(emo):
    described = [key for keys, _ in config_table() for key in keys]
    check(len(described) == len(set(described)), "a key stands twice in docs/config.md")
    check(set(described) == set(printed_config(emo)),
          f"only printed: {set(printed_config(emo)) - set(described)}; only in docs/config.md: "
          f"{set(described) - set(printed_config(emo))}")


def test_defaults_are_those_of_a_config_that_says_nothing(emo):
    printed, compared, wrong = printed_config(emo), 0, []
    for keys, cell in config_table():
        cell = re.sub(r"\(.*?\)", "", cell).strip()
        cell = re.search(r"`([^`]*)`", cell)[1] if "`" in cell else cell
        defaults = [cell] if len(keys) == 1 else [value.strip() for value in cell.split(",")]
        defaults = defaults * len(keys) if len(defaults) == 1 and cell else defaults
        for key, default in zip(keys, defaults):
            if key in GIVEN:
                continue
            found = printed[key].strip('"')
            same = found == default or default and re.fullmatch(r"[-0-9.e]+", default) and float(found) == float(default)
            if not same and not found.startswith(default.rstrip("}") + ", eval"):
                wrong.append(f"{key}: docs/config.md says {default!r}, the program {found!r}")
            compared += 1
    check(compared > 40 and not wrong, "\n".join(wrong))


def metric_names() -> set[str]:
    return set(re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/metrics.md").read_text(), re.M))


def general(metric: str) -> str:
    return re.sub(r"^(.*)block \d\d/", r"\1block NN/", re.sub(r"^rank \d\d\d/", "rank NNN/", metric))


def test_every_metric_is_described_and_the_other_way_round(emo):
    # The evaluation's are compared where they are made, in training_evaluation_test.py.
    described = {name for name in metric_names() if not name.startswith("eval/")}
    run = emo.folder / "run"
    emo.run("train", "configs/tiny.yaml", f"run.folder={run}", "train.steps=1", "parallel.ep=2", "data.repetition_filter=true",
            "--quiet", ranks=2)
    found = {general(metric) for metric in json.loads((run / "metrics.jsonl").read_text().splitlines()[0])}
    check(found == described, f"only logged: {found - described}; only in docs/metrics.md: {described - found}")


SOURCE = re.compile(r"(?<![\w*<>./-])((?:\.\.?/)*[A-Za-z0-9_][\w/.-]*\.(?:cc|h|py|sh|yaml|cmake))\b(?!\.)")
# Of other projects, and what is made while running.
ELSEWHERE = {"config.yaml", "tests/bench/SCRIPT.py", "anneal.yaml", "CONFIG.yaml", "x.yaml", "nowhere.yaml"}


def names_of_sources(where: pathlib.PurePath, text: str, with_folder: bool):
    names = {str(path) for path in tracked()}
    bare = {path.name for path in tracked()}
    for name in SOURCE.findall(text):
        if name in ELSEWHERE or name.startswith("runs/"):
            continue
        plain = name.removeprefix("./")
        if "/" in plain:
            relative = (ROOT / where).parent.joinpath(plain).resolve()
            if plain not in names and not relative.is_file():
                yield f"{where}: {name}"
        elif not with_folder and plain not in bare:
            yield f"{where}: {name}"


def test_sources_that_documents_name_exist():
    wrong = [name for path, text in documents().items() for name in names_of_sources(pathlib.PurePath(path), text, False)]
    check(not wrong, "\n".join(wrong))


def test_sources_that_help_texts_name_exist(emo):
    wrong = [f"emo {command} --help: {name}" for command, text in help_texts(emo).items()
             for name in names_of_sources(pathlib.PurePath("README.md"), text, True)]
    check(sum("configs/" in text for text in help_texts(emo).values()) >= 2 and not wrong, "\n".join(wrong))


def test_sources_that_comments_name_exist():
    layers = {"data", "parallel", "model", "train", "eval", "launch", "tests", "configs", "docs"}
    wrong, seen = [], 0
    for path in tracked():
        if path.suffix in (".cc", ".h"):
            comments = re.findall(r"//.*", (ROOT / path).read_text())
        elif path.suffix in (".sh", ".txt", ".cmake", ".yaml"):
            comments = re.findall(r"#.*", (ROOT / path).read_text())
        elif path.suffix == ".py":
            comments = re.findall(r'#.*|"""[\s\S]*?"""', (ROOT / path).read_text())
        else:
            continue
        for comment in comments:
            for name in names_of_sources(path, comment, True):
                wrong += [name] if name.split(": ")[1].removeprefix("./").split("/")[0] in layers else []
            seen += len(SOURCE.findall(comment))
    check(seen > 50 and not wrong, f"{seen} names\n" + "\n".join(wrong))


def blocks() -> list[tuple[str, str]]:
    """The command lines in the documents' fenced blocks, continued ones joined."""
    lines = []
    for path, text in documents().items():
        for block in re.findall(r"^```\w*\n([\s\S]*?)^```", text, re.M):
            lines += [(path, line.split("  #")[0]) for line in block.replace("\\\n", " ").splitlines()]
    return lines


def test_commands_in_documents_have_the_options_that_they_are_given(emo):
    wrong, seen = [], 0
    for path, line in blocks():
        found = re.search(r"(?:^|/)emo ((?:[a-z]+ )?[a-z]+)\b(.*)", line)
        if not found or not re.match(r"(\./)?(launch|build|emo)", line):
            continue
        command = next((c for c in COMMANDS if f"{found[1]}{found[2]} ".startswith(c + " ")), None)
        if command is None:
            continue
        seen += 1
        for option in re.findall(r"(?<= )(--[a-z][a-z-]*)", found[2]):
            if not re.search(rf"{option}\b(?!-)", help_texts(emo)[command]):
                wrong.append(f"{path}: emo {command} has no {option}")
    check(seen > 15 and not wrong, f"{seen} commands\n" + "\n".join(wrong))


def paths_after_the_quick_start(emo: Program) -> dict[str, str]:
    """Every path below runs/quickstart that documents and --help texts name, and where."""
    texts = {**documents(), **{f"emo {command} --help": text for command, text in help_texts(emo).items()},
             "launch/quickstart.sh": (ROOT / "launch/quickstart.sh").read_text()}
    return {name: where for where, text in texts.items()
            for name in re.findall(r"\bruns/quickstart/([\w./*-]*\w)", text)}


def test_paths_that_need_the_quick_start_name_no_step(emo):
    """How many steps it takes is the configs' matter. quickstart_report_test.py looks whether the paths exist."""
    named = paths_after_the_quick_start(emo)
    check(len(named) > 4, f"{named}")
    wrong = [f"{where}: {name}" for name, where in named.items() if re.search(r"step-\d", name)]
    check(not wrong, "\n".join(wrong))


if __name__ == "__main__":
    run_cases(globals())
