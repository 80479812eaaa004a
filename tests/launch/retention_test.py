"""The retention experiment's whole path on a few documents: what the report says is what the commands say."""
import csv
import json
import pathlib
import random
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from launch.retention import experiment, report, results  # noqa: E402
from launch.retention.arms import ARMS, METHODS, Plan  # noqa: E402
from tests.program import check, close  # noqa: E402

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


def main() -> None:
    experiment.EMO = sys.argv[1]
    experiment.RUN_BYTES = 4000
    with tempfile.TemporaryDirectory() as name:
        folder, text = pathlib.Path(name), pathlib.Path(name) / "text"
        text.mkdir()
        write_text(text)
        (folder / "plan.json").write_text(json.dumps(PLAN._asdict()))
        run = experiment.Experiment(folder, PLAN, text)
        run.finish(experiment.Job("data", 1, run.make_data))
        domains = json.loads(run.result("data").read_text())["domains"]
        check(domains == sorted(WORDS), f"{domains}")
        jobs = run.jobs(domains)
        check(len({job.name for job in jobs}) == len(jobs), "two jobs of one name")

        # Documents of the arm whose batches are of one domain stand in runs of it, and are enough.
        runs = by_domain_runs(folder)
        check(len(runs) > 6 and set(runs) == set(WORDS), f"runs of domains: {runs}")
        documents = list(open(folder / "data/train-by-domain.jsonl"))
        check(len(set(documents)) == len(documents) and set(documents) <= set(open(folder / "data/train.jsonl")),
              "a document stands twice, or is from elsewhere")
        check(run.plan.tokens < json.loads((folder / "data/train-by-domain/dataset.json").read_text())["tokens"], "too few")

        # A job that fails ends it, with the place of its output; then it goes on from there.
        broken = run.data / "test"
        broken.rename(run.data / "elsewhere")
        try:
            experiment.run_all(run, jobs, 2)
            check(False, "a job without its data did not fail")
        except experiment.Failed as error:
            check("logs" in str(error), str(error))
        (run.data / "elsewhere").rename(broken)
        done = {path: path.stat().st_mtime_ns for path in (folder / "results").glob("*.json")}
        check(any(path.name.startswith("train-") for path in done), "nothing was done before the failure")
        experiment.run_all(run, jobs, 2)
        check(all(path.stat().st_mtime_ns == time for path, time in done.items()), "what was done was done again")
        check(all(run.result(job.name).exists() for job in jobs), "a job has no result")

        report.write(folder)
        written = json.loads((folder / "report/retention.json").read_text())
        check(list(written["arms"]) == list(ARMS), str(list(written["arms"])))
        emo = written["arms"]["emo"]

        # A cell of the report, by the commands that make one.
        model = run.model("emo-1")
        run.emo("check", "experts", "rank", model, "--data", run.data / "validation", "--label", "some/numbers", "--keep", 0.25,
                "--documents", 3, "--seed", 1, "--output", folder / "subset.json")
        evaluated = ["eval", model, "--data", run.data / "test-some_numbers"]
        [cell] = [c for c in emo["cuts"] if (c["method"], c["keep"], c["documents"]) == ("layerwise", 0.25, 3)]
        # The experiment evaluates three of the five test documents; all five give what its own job says.
        measured = run.emo_json("check", "experts", "retention", f"model={model}", "--calibration", run.data / "validation",
                                "--data", run.data / "test-some_numbers", "--documents", 3, "--keep", 0.25, "--seed", 1,
                                "--method", "layerwise")["model"]["domains"]["some/numbers"]
        whole = run.emo_json("check", *evaluated)["loss"]
        cut = run.emo_json("check", *evaluated, "--experts", folder / "subset.json")["loss"]
        check(close(results.cut(measured, documents=3)["increase"], cut - whole, 1e-6), f"{measured} {cut - whole}")
        check(close(emo["full_by_domain"]["some/numbers"]["mean"], whole, 1e-6), "the whole model's loss")
        check(close(cell["increase"]["mean"], sum(d["mean"] for d in cell["by_domain"].values()) / len(WORDS), 1e-9), "mean")

        # The CSV has a row for each number, and the page every arm, method and domain.
        rows = list(csv.DictReader(open(folder / "report/retention.csv")))
        arms_cut = [arm for arm in ARMS if ARMS[arm].cut]
        check(len(rows) == len(arms_cut) * (len(WORDS) + 1) * (len(emo["cuts"]) + 2), f"{len(rows)} rows")
        [row] = [r for r in rows if (r["arm"], r["domain"], r["method"], r["keep"], r["documents"]) ==
                 ("emo", "mean", "layerwise", "0.25", "3")]
        check(close(float(row["increase"]), cell["increase"]["mean"], 1e-9), "the CSV differs")
        page = (folder / "report/index.html").read_text()
        for name in (*ARMS, *METHODS, *WORDS):
            check(name in page, f"the page does not speak of {name}")
        check(page.count("<svg") == 5 and "nan" not in page, "plots")
        check({(t["arm"], t["keep"]) for t in written["tuning"]} >= {("emo", 0.25), ("dense", 1.0)}, "tuning")
        check(all(t["after"] < t["before"] for t in written["tuning"] if t["arm"] == "dense"), f"{written['tuning']}")
    print("the experiment and its report are as described")


if __name__ == "__main__":
    main()
