"""emo sweep from outside: what is wrong with a sweep is said before it starts; it goes on where it stopped, and after a
run that fails; what its report says is what the runs' own commands say."""
import csv
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.program import ROOT, Program, check, close, once, run_cases, write_tokenizer  # noqa: E402

WORDS = {"colours": "red green blue yellow".split(), "numbers": "one two three four".split()}
CONFIG = """
run: {folder: unused}
model: {vocab_size: 640, d_model: 32, n_layers: 2, n_heads: 2, d_expert: 16, num_experts: 9, top_k: 3, init_std: 0.05}
routing: {pool: {min: 2, max: 8}, balance_weight: 0.01}
data: {path: DATA/train, sequence_length: 64}
train: {steps: 12, batch: 4}
schedule: {peak: 5e-3, warmup_steps: 3}
checkpoint: {every: 4}
"""
SWEEP = """
base: base.yaml
arms:
  none: {routing.pool: none}
  emo: {about: all tokens of a document share a pool}
  again: {}
  small-pools: {routing: {pool: {fixed: 3}}}
seeds: [1, 2]
baseline: emo
measure: {test: DATA/test, validation: DATA/validation, keep: [0.5, 3]}
"""
# Of two arms.
SHORT = "\n".join(line for line in SWEEP.splitlines() if not line.startswith(("  none:", "  again:")))


@once
def data(emo: Program) -> pathlib.Path:
    folder = emo.folder / "data"
    folder.mkdir()
    write_tokenizer(folder / "tokenizer.json")
    draw = random.Random(1)
    for split, documents in (("train", 60), ("validation", 6), ("test", 8)):
        with open(folder / f"{split}.jsonl", "w") as file:
            for number in range(documents):
                for domain, words in WORDS.items():
                    text = " ".join(draw.choice(words) for _ in range(80))
                    file.write(json.dumps({"text": text, "source": domain, "id": f"{domain}{number}"}) + "\n")
        emo.run("prepare", "--tokenizer", folder / "tokenizer.json", "--output", folder / split, folder / f"{split}.jsonl")
    return folder


def write(emo: Program, name: str, text: str, config: str = CONFIG) -> pathlib.Path:
    folder = emo.folder / name
    folder.mkdir(exist_ok=True)
    (folder / "base.yaml").write_text(config.replace("DATA", str(data(emo))))
    (folder / "sweep.yaml").write_text(text.replace("DATA", str(data(emo))))
    return folder / "sweep.yaml"


def command(emo: Program, sweep: pathlib.Path, *arguments) -> list:
    return ["sweep", sweep, "--folder", sweep.parent / "out", *arguments]


@once
def swept(emo: Program) -> pathlib.Path:
    """A folder with everything."""
    sweep = write(emo, "all", SWEEP)
    emo.run(*command(emo, sweep, "--jobs", 2))
    return sweep.parent / "out"


@once
def report(emo: Program) -> dict:
    return json.loads((swept(emo) / "sweep.json").read_text())


def arm_of(report: dict, name: str) -> dict:
    [arm] = [arm for arm in report["arms"] if arm["name"] == name]
    return arm


def test_all_errors_of_all_arms_before_the_first_starts(emo):
    for text, expected, code in [
            (SWEEP.replace("baseline: emo", "baseline: emoo"), ["no arm is called 'emoo'; did you mean 'emo'"], 64),
            (SWEEP.replace("again: {}", "none: {}"), ["sweep.yaml:6", "'none' stands twice"], 64),
            (SWEEP.replace("  again: {}", "  again: {routing.pol: none}\n  b: {modell.d_model: 3}"),
             ["sweep.yaml:6:", "unknown key 'routing.pol'; did you mean 'routing.pool'", "(arm again)", "modell.d_model", "(arm b)"], 64),
            (SWEEP.replace("seeds", "seds"), ["unknown key 'seds'; did you mean 'seeds'"], 64),
            (SWEEP.replace("seeds: [1, 2]", "seeds: [1, 1]"), ["a seed stands twice"], 64),
            (SWEEP.replace("keep: [0.5, 3]", "keep: [0.5, 30]"), ["keep 30 experts of 9"], 64),
            (SWEEP.replace("keep: [0.5, 3]", "keep: [1.5]"), ["keep 1.5"], 64),
            (SWEEP.replace("again: {}", "again: {run.seed: 3}"), ["run.seed is set by the sweep"], 64),
            (SWEEP.replace("again: {}", "a/b: {}"), ["a name has letters"], 64),
            (SWEEP.replace("arms:", "arms: {}\ngrid:"), ["exclude each other"], 64),
            (SWEEP.replace("base: base.yaml", ""), ["base is missing"], 64),
            (SWEEP.replace("DATA/test", "nowhere").replace("DATA/validation", "nowhere2"), ["nowhere", "nowhere2"], 66),
            (SWEEP.replace("base.yaml", "nothing.yaml"), ["nothing.yaml"], 66),
            (SWEEP[:SWEEP.index("arms:")] + "arms: {}\n" + SWEEP[SWEEP.index("seeds:"):], ["there is no arm"], 64),
            (SWEEP + "ranks: 4294967296\n", ["ranks is '4294967296', must be a number from 0"], 64),
            (SWEEP.replace("again: {}", "again: {seeds: [1, 22]}"), ["seed 22 is none of the sweep's seeds"], 64),
            (SWEEP.replace("again: {}", "sweep.json: {}"), ["is no file of the sweep's"], 64),
            (SWEEP.replace("keep: [0.5, 3]", "keep: [0.5], documents: [1000]"), ["has 6 with the label colours", "label numbers"], 64),
            (SWEEP.replace("keep: [0.5, 3]", "keep: [0.5], documents: [0]"), ["must be a list of numbers from 1"], 64),
            (SWEEP.replace("keep: [0.5, 3]", "tasks: DATA/test"), ["no .jsonl file"], 66),
            ("- a list", ["a sweep is a map"], 64), ("", ["a sweep is a map"], 64)]:
        sweep = write(emo, "wrong", text)
        said = emo.run(*command(emo, sweep), expect=code)
        for part in expected:
            check(part in said.stderr, f"{text}\nno {part!r} in\n{said.stderr}")
        check(not (sweep.parent / "out").exists() and said.stdout == "", "something was begun")


def test_seeds_that_the_sweep_sets_for_all_are_kept(emo):
    sweep = write(emo, "set", SHORT + "\nset: {data.seed: 7}\n")
    emo.run(*command(emo, sweep, "seeds=[2]", "train.steps=1", "measure.keep=[]", "measure.copies_on=0"))
    config = (sweep.parent / "out/emo/seed-2/config.yaml").read_text()
    check("  seed: 7" in config and "init_seed: 2" in config and "seed: 2" in config, config)


def test_a_folder_of_any_name(emo):
    sweep = write(emo, "names", SHORT + '\nset: {data.path: "{folder}/train"}\n')
    folder = emo.folder / 'a "b" \'c\' 100% \\d'
    folder.mkdir()
    (folder / "train").symlink_to(data(emo) / "train")
    asked = ["seeds=[1]", "train.steps=1", "measure.keep=[]"]
    emo.run("sweep", sweep, "--folder", folder, *asked)
    check((folder / "sweep.html").exists(), "no page")
    said = emo.run("sweep", sweep, "--folder", folder, "--slurm", *asked).stdout
    script = subprocess.run(["bash", "-c", f"cat {said.removeprefix('sbatch ')}"], capture_output=True, text=True).stdout
    check("100%%" in script and "\\ " in script, script)
    check(subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0, "the script is no shell script")
    wrong = subprocess.run([emo.executable, "sweep", str(sweep), "--folder", b"/tmp/\xff"], capture_output=True, text=True,
                           errors="replace")
    check(wrong.returncode == 64 and "UTF-8" in wrong.stderr, wrong.stderr)


def test_an_error_that_all_arms_share_is_said_once(emo):
    sweep = write(emo, "shared", SWEEP, CONFIG.replace("d_model", "d_modle"))
    said = emo.run(*command(emo, sweep), expect=64).stderr
    check(said.count("unknown key 'model.d_modle'") == 1 and "(arm" not in said, said)


def test_a_plan(emo):
    sweep = write(emo, "plan", SWEEP)
    plan = emo.json(*command(emo, sweep, "--plan"))
    check([arm["name"] for arm in plan["arms"]] == ["none", "emo", "again", "small-pools"], f"{plan}")
    check(all(arm["runs"] == arm["left"] == 2 and arm["minutes"] > 0 and arm["disk_bytes"] > 0 for arm in plan["arms"]), f"{plan}")
    check(not (sweep.parent / "out").exists(), "a plan wrote something")
    done = emo.json("sweep", write(emo, "all", SWEEP), "--folder", swept(emo), "--plan")
    check(all(arm["left"] == 0 and arm["minutes"] == 0 for arm in done["arms"]), f"{done}")


def test_what_the_report_says_is_what_the_commands_say(emo):
    for run in report(emo)["runs"]:
        check(run["state"] == "done", f"{run}")
    run = [run for run in report(emo)["runs"] if run["arm"] == "small-pools"][1]
    losses = emo.json("eval", run["folder"], "--data", data(emo) / "test", threads=2)
    mean = sum(source["loss"] for source in losses["sources"].values()) / len(WORDS)
    check(close(run["full"], mean, 1e-12), f"{run['full']} {mean}")
    check(close(arm_of(report(emo), "small-pools")["full"]["by_seed"]["2"], mean, 1e-12), "by seed")
    measured = emo.json("experts", "retention", f"m={run['folder']}", "--calibration", data(emo) / "validation", "--data",
                        data(emo) / "test", "--keep", "0.5,3", "--method", "router", "--seed", 2)["m"]
    [cut] = [c for c in arm_of(report(emo), "small-pools")["cuts"] if c["main"] and c["keep"] == 3]
    [same] = [c for c in measured["cuts"] if c["keep"] == 3 and c["weights"] == "kept"]
    check(same["experts"] == 3 and close(cut["increase"]["by_seed"]["2"], same["increase"], 1e-12), f"{cut} {same}")
    config = (pathlib.Path(run["folder"]) / "config.yaml").read_text()
    check(all(part in config for part in ("seed: 2", "init_seed: 2", "last: model", "{min: 3, max: 3")), config)


def test_documents_stand_in_the_report(emo):
    for run in report(emo)["runs"]:
        for domain in WORDS:
            source, cut = run["eval"]["sources"][domain], run["retention"]["domains"][domain]
            documents = source["by_document"]
            check(documents["ids"] == [f"{domain}{i}" for i in documents_order(documents["ids"])], f"{documents['ids']}")
            mean = sum(n * loss for n, loss in zip(documents["tokens"], documents["loss"])) / sum(documents["tokens"])
            check(close(mean, source["loss"], 1e-12) and cut["documents"] == 8 and cut["tokens"] == sum(documents["tokens"]), f"{source}")
            check(all(len(losses) == 8 for losses in cut["by_document"]["cuts"]), "cuts by document")


def documents_order(ids: list[str]) -> list[int]:
    order = [int("".join(c for c in name if c.isdigit())) for name in ids]
    check(sorted(order) == list(range(8)), f"{ids}")
    return order


def test_equal_arms_are_equal_to_the_bit(emo):
    again = arm_of(report(emo), "again")
    check(again["full_against_baseline"]["verdict"] == "equal", f"{again['full_against_baseline']}")
    check(all(cut["loss_against_baseline"]["verdict"] == "equal" for cut in again["cuts"]), "cuts")
    check("equal to the bit" in again["sentence"], again["sentence"])
    other = arm_of(report(emo), "small-pools")["full_against_baseline"]
    check(other["verdict"] != "equal" and other["decided_over"] == "seeds" and other["over_documents"], f"{other}")


def test_arms_that_differ_in_the_order_s_seed_are_within_noise(emo):
    text = SWEEP.replace("again: {}", "order: {data.seed: 77}").replace("seeds: [1, 2]", "seeds: [1, 2, 3]")
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("  small-pools:", "  none:")))
    sweep = write(emo, "order", text)
    result = emo.json(*command(emo, sweep, "--jobs", 2))
    order = arm_of(result, "order")
    found = order["full_against_baseline"]
    check(found["difference"] != 0 and found["over_seeds"]["low"] < 0 < found["over_seeds"]["high"], f"{found}")
    for cut in order["cuts"]:
        if cut["main"]:
            interval = cut["loss_against_baseline"]["over_seeds"]
            check(interval["low"] < 0 < interval["high"], f"{cut}")


def test_numbers_of_jobs_and_threads_change_nothing(emo):
    sweep = write(emo, "alone", SHORT)
    alone = emo.json(*command(emo, sweep, "seeds=[1]"), threads=2)
    for arm in alone["arms"]:
        check(arm["full"]["by_seed"]["1"] == arm_of(report(emo), arm["name"])["full"]["by_seed"]["1"], arm["name"])
    small = arm_of(alone, "small-pools")
    check(small["full_against_baseline"]["decided_over"] == "documents" and "over documents (one seed)" in small["sentence"], f"{small}")


def test_what_is_done_is_not_done_again(emo):
    checkpoints = {path: path.stat().st_mtime_ns for path in swept(emo).glob("*/seed-*/*") if path.suffix in (".json", "")}
    said = emo.run("sweep", write(emo, "all", SWEEP), "--folder", swept(emo))
    changed = [str(path) for path, at in checkpoints.items() if path.stat().st_mtime_ns != at]
    check(not changed, f"written again: {changed}")
    check("small-pools against emo" in said.stdout, said.stdout)


def test_another_question_measures_again_and_trains_not(emo):
    sweep = write(emo, "question", SHORT)
    emo.run(*command(emo, sweep, "seeds=[1]", "--jobs", 2))
    models = {path: path.stat().st_mtime_ns for path in (sweep.parent / "out").glob("*/seed-1/step-*/MANIFEST")}
    results = sorted((sweep.parent / "out").glob("*/seed-1/*.json"))
    plan = emo.json(*command(emo, sweep, "seeds=[1]", "measure.keep=[4]", "--plan"))
    check(sorted((sweep.parent / "out").glob("*/seed-1/*.json")) == results, "a plan removed results")
    check(all(arm["left"] == 1 for arm in plan["arms"]), f"{plan}")
    other = emo.json(*command(emo, sweep, "seeds=[1]", "measure.keep=[4]", "--report"))
    check([run["state"] for run in other["runs"]] == ["missing"] * 2, "results of another question are reported")
    result = emo.json(*command(emo, sweep, "seeds=[1]", "measure.keep=[4]"))
    check(all(path.stat().st_mtime_ns == at for path, at in models.items()), "trained again")
    check([cut["keep"] for cut in result["arms"][0]["cuts"] if cut["main"]] == [4], f"{result['arms'][0]['cuts']}")


def test_a_run_that_was_made_otherwise_is_refused(emo):
    said = emo.run("sweep", write(emo, "all", SWEEP), "train.steps=13", "--folder", swept(emo), expect=64).stderr
    check("was made otherwise" in said and "train.steps: was 12, is 13" in said, said)
    small = write(emo, "data-changes", SHORT)
    folder = emo.folder / "changing"
    subprocess.run(["cp", "-r", data(emo) / "train", folder], check=True)
    one = [*command(emo, small, "seeds=[1]", "train.steps=1", "measure.keep=[]", f"data.path={folder}")]
    emo.run(*one)
    subprocess.run(["rm", "-r", folder], check=True)
    subprocess.run(["cp", "-r", data(emo) / "test", folder], check=True)
    said = emo.run(*one, expect=64).stderr
    check("its data's contents were others" in said, said)
    constant = [*command(emo, write(emo, "shorter", SHORT), "seeds=[1]", "measure.keep=[]", "schedule.kind=constant")]
    emo.run(*constant, "train.steps=3")
    check("it has 3 steps, and 2 are asked" in emo.run(*constant, "train.steps=2", expect=64).stderr, "fewer steps")
    check("with the model alone, and 4 are asked" in emo.run(*constant, "train.steps=4", expect=64).stderr, "more steps")
    other = write(emo, "other", SWEEP)
    other.rename(other.with_name("other.yaml"))
    said = emo.run("sweep", other.with_name("other.yaml"), "--folder", swept(emo), expect=73).stderr
    check("holds the sweep" in said, said)


def test_a_signal_stops_it_and_the_same_command_goes_on(emo):
    sweep = write(emo, "stopped", SHORT, CONFIG.replace("steps: 12", "steps: 800"))
    arguments = [emo.executable, *map(str, command(emo, sweep, "seeds=[1]", "--jobs", 2))]
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    log = sweep.parent / "out/emo/seed-1/metrics.jsonl"
    wait_until(lambda: log.exists() and log.stat().st_size > 0, process)
    said = emo.run(*command(emo, sweep, "seeds=[1]"), expect=73).stderr
    check("sweep.lock" in said, f"a second call was not refused: {said}")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    check(process.returncode == 75, f"{process.returncode} {said}")
    check("start the same command again" in said and "missing" in said, said)
    steps = [int(path.name.split("-")[1]) for path in log.parent.glob("step-*")]
    check(steps and max(steps) < 800, f"nothing was saved: {steps}")
    result = emo.json(*command(emo, sweep, "seeds=[1]", "--jobs", 2))
    check(all(run["state"] == "done" for run in result["runs"]), "not all done")
    check("going on from" in (log.parent / "log.txt").read_text(), "began anew")


def wait_until(condition, process) -> None:
    for _ in range(600):
        if condition():
            return
        check(process.poll() is None, "it has ended before")
        time.sleep(0.1)
    raise AssertionError("waited a minute")


def test_it_goes_on_after_a_run_that_fails(emo):
    text = SWEEP.replace("again: {}", "explodes: {schedule.peak: 900, optimizer.epsilon: 1.0e-30, train.clip: 0}")
    sweep = write(emo, "fails", text, CONFIG.replace("steps: 12", "steps: 40"))
    said = emo.run(*command(emo, sweep, "seeds=[1]"), expect=77)
    check("explodes seed 1 failed: training ended with exit code 77" in said.stderr and "not finite" in said.stderr, said.stderr)
    out = sweep.parent / "out"
    result = json.loads((out / "sweep.json").read_text())
    states = {run["arm"]: run["state"] for run in result["runs"]}
    check(states == {"none": "done", "emo": "done", "explodes": "failed", "small-pools": "done"}, f"{states}")
    check("no run of it is done" in arm_of(result, "explodes")["sentence"], arm_of(result, "explodes")["sentence"])
    page = (out / "sweep.html").read_text()
    check("explodes seed 1 failed" in page and "not finite" in page and page.count("<svg") == 3, "the page")


def test_a_grid_is_every_choice(emo):
    text = SWEEP[:SWEEP.index("arms:")] + ("grid: {routing.pool: [none, {fixed: 3}], routing.balance_weight: [0.01, 0.1]}\n"
                                           f"measure: {{test: {data(emo)}/test}}\n")
    plan = emo.json(*command(emo, write(emo, "grid", text), "--plan"))
    check([arm["name"] for arm in plan["arms"]] ==
          ["pool-none_balance_weight-0.01", "pool-none_balance_weight-0.1", "pool-fixed-3_balance_weight-0.01",
           "pool-fixed-3_balance_weight-0.1"], f"{plan}")


def test_the_table_and_the_page(emo):
    rows = list(csv.DictReader(open(swept(emo) / "sweep.csv")))
    [row] = [r for r in rows if (r["arm"], r["seed"], r["domain"], r["method"]) == ("none", "1", "mean", "none")]
    check(float(row["loss"]) == arm_of(report(emo), "none")["full"]["by_seed"]["1"], f"{row}")
    [row] = [r for r in rows if (r["arm"], r["seed"], r["domain"], r["keep"], r["weights"]) == ("none", "2", "numbers", "0.5", "kept")]
    check(row["experts"] in ("4", "5") and row["documents"] == "8", f"{row}")
    page = (swept(emo) / "sweep.html").read_text()
    for name in ("none", "emo", "again", "small-pools", *WORDS, "nats per token", "sweep.csv"):
        check(name in page, f"the page does not speak of {name}")
    check(page.count("<svg") == 3 and "nan" not in page and "src=" not in page and "<script" not in page, "plots")


def test_a_report_of_nothing_draws_nothing(emo):
    sweep = write(emo, "nothing", SWEEP)
    (sweep.parent / "out").mkdir()
    said = emo.run(*command(emo, sweep, "--report"))
    check("no run of it is done" in said.stdout and "8 of 8 runs are missing" in said.stderr, said.stderr)
    page = (sweep.parent / "out/sweep.html").read_text()
    check("<svg" not in page and "No run is done" in page, page)


def test_a_slurm_array(emo):
    """The script as a scheduler runs it: each task, then the report; a task that is stopped goes back into the queue."""
    sweep = write(emo, "slurm", SHORT)
    said = emo.run(*command(emo, sweep, "seeds=[1]", "--slurm"))
    out = sweep.parent / "out"
    script = out / "sweep.sbatch"
    check(said.stdout == f"sbatch '{script}'\n", said.stdout)
    check("#SBATCH --array=0-1\n" in script.read_text() and "#SBATCH --ntasks=1\n" in script.read_text(), script.read_text())
    tools = sweep.parent / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f"#!/bin/sh\necho \"$@\" >>{tools}/said\n")
    (tools / "scontrol").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_ARRAY_JOB_ID": "7", "OMP_NUM_THREADS": "1"}
    for task in range(2):
        check(not (out / "sweep.html").exists() or task > 0, "a page before the first task")
        done = subprocess.run(["bash", script], env={**environment, "SLURM_ARRAY_TASK_ID": str(task)}, capture_output=True, text=True)
        check(done.returncode == 0, done.stderr)
    result = json.loads((out / "sweep.json").read_text())
    check([run["state"] for run in result["runs"]] == ["done"] * 2, f"{[run['state'] for run in result['runs']]}")
    long = write(emo, "slurm-long", SHORT, CONFIG.replace("steps: 12", "steps: 3000"))
    emo.run(*command(emo, long, "seeds=[1]", "--slurm"))
    task = subprocess.Popen(["bash", long.parent / "out/sweep.sbatch"], env={**environment, "SLURM_ARRAY_TASK_ID": "0"})
    metrics = long.parent / "out/emo/seed-1/metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.stat().st_size > 0, task)
    task.send_signal(signal.SIGUSR1)
    check(task.wait(60) == 75 and (tools / "said").read_text() == "requeue 7_0\n", "not requeued")
    emo.run(*command(emo, sweep, "seeds=[1]", "--task", 9), expect=64)


def test_runs_of_two_ranks(emo):
    sweep = write(emo, "ranks", SHORT)
    result = emo.json(*command(emo, sweep, "seeds=[1]", "parallel.ep=2"))
    for arm in result["arms"]:
        check(close(arm["full"]["mean"], arm_of(report(emo), arm["name"])["full"]["by_seed"]["1"], 1e-4), arm["name"])


def test_every_sweep_of_the_repository_is_right(emo):
    """All of it but the data, which is not there."""
    sweeps = sorted((ROOT / "configs/sweeps").glob("*.yaml"))
    check(len(sweeps) >= 5, f"{sweeps}")
    for sweep in sweeps:
        said = emo.run("sweep", sweep, "--slurm", "--folder", emo.folder / "there" / sweep.stem, f"data.path={data(emo)}/train",
                       f"measure.test={data(emo)}/test", f"measure.validation={data(emo)}/validation", expect=None)
        wrong = said.returncode != 0 and "train-by-domain: no such file" not in said.stderr
        check(not wrong, f"{sweep}: {said.stderr}")


if __name__ == "__main__":
    run_cases(globals())
