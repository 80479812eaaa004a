"""The retention experiment's whole path on a few documents: what the report says is what the commands say."""
import csv
import json
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from launch.retention import experiment, report, results  # noqa: E402
from launch.retention.arms import ARMS, CUT_ARMS, METHODS, Plan  # noqa: E402
from tests.program import Program, check, close, once, run_cases  # noqa: E402

WORDS = {"colours": "red green blue yellow".split(), "some/numbers": "one two three four".split(),
         "animals": "cat dog bird fish".split()}
PLAN = Plan(tokens=3 * experiment.BATCH_TOKENS, seeds=1, calibration=6, sizes=[1, 3], test_documents=3,
            tuned_domains=["some/numbers"], tuning_steps=2)


def write_text(folder: pathlib.Path) -> None:
    draw = random.Random(1)
    for split, documents in (("train", 60), ("validation", 8), ("test", 5)):
        with open(folder / f"{split}.jsonl", "w") as file:
            for i in range(documents):
                for domain, words in WORDS.items():
                    text = " ".join(draw.choice(words) for _ in range(300))
                    file.write(json.dumps({"text": text, "source": domain, "id": f"{domain}{i}"}) + "\n")


def by_domain_runs(folder: pathlib.Path) -> list[str]:
    sources = [json.loads(line)["source"] for line in open(folder / "data/train-by-domain.jsonl")]
    return [s for i, s in enumerate(sources) if i == 0 or s != sources[i - 1]]


@once
def prepared(emo: Program) -> experiment.Experiment:
    """An experiment of few documents, before its first model."""
    experiment.EMO = emo.executable
    experiment.RUN_BYTES = 4000
    folder, text = emo.folder, emo.folder / "text"
    text.mkdir()
    write_text(text)
    (folder / "plan.json").write_text(json.dumps(PLAN._asdict()))
    run = experiment.Experiment(folder, PLAN, text)
    run.finish(experiment.Job("data", 1, run.make_data))
    return run


def jobs_of(run: experiment.Experiment) -> list[experiment.Job]:
    return run.jobs(json.loads(run.result("data").read_text())["domains"])


@once
def trained(emo: Program) -> experiment.Experiment:
    prepared(emo).sweep(2)
    return prepared(emo)


def what_stands(run: experiment.Experiment) -> dict[pathlib.Path, int]:
    """When each result was written."""
    return {path: path.stat().st_mtime_ns
            for pattern in ("results/*.json", "*/seed-*/*.json", "*/seed-*/step-*/MANIFEST") for path in run.folder.glob(pattern)}


@once
def broken_off(emo: Program) -> tuple[str, dict[pathlib.Path, int]]:
    """What is said of jobs whose data is missing, and what stood there then."""
    run = trained(emo)
    data = run.data / "validation"
    data.rename(run.data / "elsewhere")
    try:
        experiment.run_all(run, jobs_of(run), 1)
        said = ""
    except experiment.Failed as error:
        said = str(error)
    finally:
        (run.data / "elsewhere").rename(data)
    return said, what_stands(run)


@once
def finished(emo: Program) -> experiment.Experiment:
    broken_off(emo)
    trained(emo).sweep(2)
    experiment.run_all(trained(emo), jobs_of(trained(emo)), 2)
    report.write(prepared(emo).folder)
    return prepared(emo)


@once
def written(emo: Program) -> dict:
    return json.loads((finished(emo).folder / "report/retention.json").read_text())


def cell_of(emo: Program) -> dict:
    [cell] = [c for c in written(emo)["arms"]["emo"]["cuts"]
              if (c["method"], c["keep"], c["documents"]) == ("layerwise", 0.25, 3)]
    return cell


def test_domains_and_jobs(emo):
    run = prepared(emo)
    domains = json.loads(run.result("data").read_text())["domains"]
    check(domains == sorted(WORDS), f"{domains}")
    trained(emo)
    jobs = jobs_of(run)
    check(len({job.name for job in jobs}) == len(jobs), "two jobs of one name")


def test_batches_of_one_domain(emo):
    """Documents of the arm whose batches are of one domain stand in runs of it, and are enough."""
    folder = prepared(emo).folder
    runs = by_domain_runs(folder)
    check(len(runs) > 6 and set(runs) == set(WORDS), f"runs of domains: {runs}")
    documents = list(open(folder / "data/train-by-domain.jsonl"))
    check(len(set(documents)) == len(documents) and set(documents) <= set(open(folder / "data/train.jsonl")),
          "a document stands twice, or is from elsewhere")
    check(PLAN.tokens < json.loads((folder / "data/train-by-domain/dataset.json").read_text())["tokens"], "too few")


def test_a_job_that_fails_ends_it_with_the_place_of_its_output(emo):
    said, done = broken_off(emo)
    check(said, "a job without its data did not fail")
    check("logs" in said, said)
    check(any(path.name.startswith("tune-") for path in done), "nothing was done before the failure")


def test_a_sweep_without_its_data_begins_nothing(emo):
    run = prepared(emo)
    nowhere = experiment.Experiment(emo.folder / "nowhere", PLAN, None)
    try:
        nowhere.sweep(1)
        check(False, "did not fail")
    except experiment.Failed as error:
        check("exit code 66" in str(error) and not nowhere.folder.exists(), str(error))
    check(run.folder.exists(), "the other")


def test_it_goes_on_from_there(emo):
    run, (_, done) = finished(emo), broken_off(emo)
    check(all(path.stat().st_mtime_ns == time for path, time in done.items()), "what was done was done again")
    check(all(run.result(job.name).exists() for job in jobs_of(run)), "a job has no result")


def test_a_cell_of_the_report_is_what_its_commands_give(emo):
    run, arm, cell = finished(emo), written(emo)["arms"]["emo"], cell_of(emo)
    model, subset = run.model("emo", 1), run.folder / "subset.json"
    run.emo("check", "experts", "rank", model, "--data", run.data / "validation", "--label", "some/numbers", "--keep", 0.25,
            "--documents", 3, "--seed", 1, "--output", subset)
    evaluated = ["eval", model, "--data", run.data / "test-some_numbers"]
    # The experiment evaluates three of the five test documents; all five give what its own job says.
    measured = run.emo_json("check", "experts", "retention", f"model={model}", "--calibration", run.data / "validation",
                            "--data", run.data / "test-some_numbers", "--documents", 3, "--keep", 0.25, "--seed", 1,
                            "--method", "layerwise")["model"]["domains"]["some/numbers"]
    whole = run.emo_json("check", *evaluated)["loss"]
    cut = run.emo_json("check", *evaluated, "--experts", subset)["loss"]
    check(close(results.cut(measured, documents=3)["increase"], cut - whole, 1e-6), f"{measured} {cut - whole}")
    check(close(arm["full_by_domain"]["some/numbers"]["mean"], whole, 1e-6), "the whole model's loss")
    check(close(cell["increase"]["mean"], sum(d["mean"] for d in cell["by_domain"].values()) / len(WORDS), 1e-9), "mean")


def test_the_table_has_a_row_for_each_number(emo):
    rows = list(csv.DictReader(open(finished(emo).folder / "report/retention.csv")))
    arms_cut = CUT_ARMS
    cuts = written(emo)["arms"]["emo"]["cuts"]
    check(len(rows) == len(arms_cut) * (len(WORDS) + 1) * (len(cuts) + 2), f"{len(rows)} rows")
    [row] = [r for r in rows if (r["arm"], r["domain"], r["method"], r["keep"], r["documents"]) ==
             ("emo", "mean", "layerwise", "0.25", "3")]
    check(close(float(row["increase"]), cell_of(emo)["increase"]["mean"], 1e-9), "the CSV differs")


def test_the_page_has_every_arm_method_and_domain(emo):
    check(list(written(emo)["arms"]) == ARMS, str(list(written(emo)["arms"])))
    page = (finished(emo).folder / "report/index.html").read_text()
    for name in (*ARMS, *METHODS, *WORDS):
        check(name in page, f"the page does not speak of {name}")
    check(page.count("<svg") == 5 and "nan" not in page, "plots")


def test_tuning(emo):
    tuning = written(emo)["tuning"]
    check({(t["arm"], t["keep"]) for t in tuning} >= {("emo", 0.25), ("dense", 1.0)}, "tuning")
    check(all(t["after"] < t["before"] for t in tuning if t["arm"] == "dense"), f"{tuning}")


if __name__ == "__main__":
    run_cases(globals())
