"""Runs the retention experiment, as much at once as there are cores, and writes its report: the sweep
configs/sweeps/retention.yaml, then jobs for what else is measured.

A job is one command of `emo`, or a short series; what it has written stands under the folder's
`results`, and a job whose result stands there is not run again. See docs/retention.md.

Example: ./launch/experiment.sh retention --quick
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import threading
import time
import typing

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from launch.arguments import Arguments  # noqa: E402
from launch.retention.arms import CUT_ARMS, FULL, QUICK, TUNED_ARMS, Plan  # noqa: E402

EMO = "build/release/emo"
CONFIG = "configs/retention.yaml"
SWEEP = "configs/sweeps/retention.yaml"
STOPPED = 75              # exit code of what was stopped by a signal, and saved
VOCABULARY = 4096
BATCH_TOKENS = 8192       # of configs/retention.yaml
RUN_BYTES = 80_000        # of text of one domain after another in `train-by-domain`: about 4 batches
TOKENS_PER_SECOND = 13_000  # one core's training, for the estimate of the time left


class Job(typing.NamedTuple):
    name: str                    # its result is results/NAME.json
    seconds: float               # about, for the time left
    run: typing.Callable[[], dict]


def file_name(domain: str) -> str:
    """A label as `emo experts rank` writes it into names of files."""
    return domain.replace("/", "_")


class Failed(Exception):
    """A command did not end well; the message says where its output is."""


class Stopped(Exception):
    """By a signal, with what ran saved."""


class Experiment:
    def __init__(self, folder: pathlib.Path, plan: Plan, text: pathlib.Path | None):
        self.folder = folder
        self.plan = plan
        self.text = text          # instead of launch/texts.py's
        self.data = folder / "data"

    # Commands

    def emo(self, log: str, *arguments) -> str:
        """Runs emo on one core. Standard error goes to logs/LOG.log."""
        path = self.folder / "logs" / f"{log}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [EMO, *map(str, arguments)]
        with open(path, "a") as file:
            file.write(" ".join(command) + "\n")
            file.flush()
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=file, text=True,
                                  env={**os.environ, "OMP_NUM_THREADS": "1"})
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}\nexit code {done.returncode}; its output is in {path}")
        return done.stdout

    def emo_json(self, log: str, *arguments) -> dict:
        return json.loads(self.emo(log, *arguments, "--json"))

    # Data

    def write(self, name: str, documents: list[dict]) -> pathlib.Path:
        path = self.data / f"{name}.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for document in documents:
                file.write(json.dumps(document, ensure_ascii=False) + "\n")
        return path

    def prepare(self, name: str, documents: list[dict] | None = None) -> dict:
        """Token shards in data/NAME, of data/NAME.jsonl as it stands or of these documents, and the summary of them."""
        lines = self.data / f"{name}.jsonl" if documents is None else self.write(name, documents)
        folder = self.data / name
        shutil.rmtree(folder, ignore_errors=True)
        return self.emo_json("data", "prepare", "--tokenizer", self.data / "tokenizer.json", "--output", folder, lines)

    def make_data(self) -> dict:
        """Text, tokenizer, and the token shards of every arm."""
        self.data.mkdir(parents=True, exist_ok=True)
        if self.text is None:
            subprocess.run(["/usr/bin/python3", "launch/texts.py", self.data, "retention"], check=True)
            shutil.rmtree(self.data / "packages")
        else:
            for split in ("train", "validation", "test"):
                shutil.copy(self.text / f"{split}.jsonl", self.data)
        splits = {split: [json.loads(line) for line in open(self.data / f"{split}.jsonl", encoding="utf-8")]
                  for split in ("train", "validation", "test")}
        by_domain: dict[str, list[dict]] = {}
        for document in splits["train"]:
            by_domain.setdefault(document["source"], []).append(document)
        unknown = set(self.plan.tuned_domains) - set(by_domain)
        if unknown:
            raise Failed(f"no training documents of {', '.join(sorted(unknown))} to tune on; --tuned-domains may name "
                         f"some of {', '.join(sorted(by_domain))}")
        sample = self.write("sample", splits["train"][::max(1, len(splits["train"]) // 20_000)])
        subprocess.run([sys.executable, "launch/train_tokenizer.py", sample, str(VOCABULARY),
                        self.data / "tokenizer.json"], check=True)
        sample.unlink()
        held_out = first_of_each(splits["validation"], self.plan.calibration)
        summaries = {"train": self.prepare("train"), "validation": self.prepare("validation", held_out),
                     "test": self.prepare("test")}
        self.prepare("train-by-domain", one_domain_after_another(by_domain, wanted=self.plan.tokens * 8))
        for domain in self.plan.tuned_domains:
            self.prepare(f"tune-{file_name(domain)}", by_domain[domain])
            self.prepare(f"test-{file_name(domain)}", [d for d in splits["test"] if d["source"] == domain])
        return {"domains": sorted(by_domain), **summaries}

    # Models

    def sweep(self, jobs: int) -> None:
        """Trains, evaluates and cuts every arm; what is done of it is not done again."""
        plan = self.plan
        command = [EMO, "sweep", SWEEP, "--folder", str(self.folder), "--jobs", str(jobs),
                   f"train.tokens={plan.tokens}", f"seeds={list(range(1, plan.seeds + 1))}",
                   f"measure.documents={plan.sizes}", f"measure.test_documents={plan.test_documents}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            code = process.wait()
        except KeyboardInterrupt:   # the sweep has it too, saves what runs, and ends
            code = process.wait()
        if code == STOPPED:
            raise Stopped
        if code != 0:
            raise Failed(f"{' '.join(command)}\nexit code {code}; {self.folder}/sweep.html says what is missing")

    def swept(self) -> dict:
        return json.loads((self.folder / "sweep.json").read_text())

    def model(self, arm: str, seed: int) -> pathlib.Path:
        return max((self.folder / arm / f"seed-{seed}").glob("step-*[0-9]"))

    def overrides(self, arm: str) -> list[str]:
        """What makes an arm, but for its pools and its data."""
        [found] = [a for a in self.swept()["arms"] if a["name"] == arm]
        return [f"{key}={value}" for key, value in found["overrides"].items() if key.startswith("model.")]

    def overlap(self, arm: str, seed: int, domains: list[str]) -> dict:
        """Which experts the domains share, at a quarter."""
        folder = self.folder / "subsets" / f"{arm}-{seed}"
        self.emo(f"measure-{arm}-{seed}", "experts", "rank", self.model(arm, seed), "--data", self.data / "validation",
                 "--label", ",".join(domains), "--keep", 0.25, "--output-folder", folder, "--overwrite")
        subsets = [next(folder.glob(f"{file_name(domain)}-layerwise-*.json")) for domain in domains]
        return {"domains": domains,
                **self.emo_json(f"measure-{arm}-{seed}", "experts", "compare", self.model(arm, seed), *subsets)}

    def tune(self, arm: str, keep: float, domain: str) -> dict:
        """A domain's loss of a model, or of the part that the domain uses, before and after tuning on it."""
        log = f"tune-{arm}-{keep}-{file_name(domain)}"
        model, test = self.model(arm, 1), self.data / f"test-{file_name(domain)}"
        folder = self.folder / "tuned" / log
        if keep < 1:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self.emo(log, "experts", "rank", model, "--data", self.data / "validation", "--label", domain,
                     "--keep", keep, "--output", folder / "subset.json")
            self.emo(log, "experts", "extract", model, folder / "subset.json", folder / "cut")
            model = folder / "cut"
        before = self.emo_json(log, "eval", model, "--data", test)["loss"]
        # No pools: one domain is left, and a cut model chooses from what it has.
        overrides = [*self.overrides(arm), "routing.pool=none", "run.change_contract=true"]
        if keep < 1:
            cut = json.loads((model / "config.json").read_text())
            overrides += [f"model.num_experts={cut['num_experts']}", f"model.top_k={cut['num_experts_per_tok']}"]
        self.emo(log, "train", CONFIG, "--quiet", f"run.folder={folder}/run", f"run.start_from={model}",
                 f"data.path={self.data}/tune-{file_name(domain)}", f"train.tokens={self.plan.tuning_steps * BATCH_TOKENS}",
                 "schedule.peak=1e-3", "schedule.warmup_steps=5", *overrides)
        after = self.emo_json(log, "eval", max((folder / "run").glob("step-*[0-9]")), "--data", test)["loss"]
        return {"arm": arm, "keep": keep, "domain": domain, "before": before, "after": after}

    # All of it

    def jobs(self, domains: list[str]) -> list[Job]:
        plan = self.plan
        jobs = [Job(f"tune-{arm}-{keep}-{file_name(domain)}", 10 + plan.tuning_steps * BATCH_TOKENS / TOKENS_PER_SECOND,
                    lambda a=arm, k=keep, d=domain: self.tune(a, k, d))
                for arm, keeps in TUNED_ARMS.items() for keep in keeps for domain in plan.tuned_domains]
        return jobs + [Job(f"overlap-{run['arm']}-{run['seed']}", 40,
                           lambda a=run["arm"], s=run["seed"]: self.overlap(a, s, domains))
                       for run in self.swept()["runs"] if run["arm"] in CUT_ARMS]

    def result(self, name: str) -> pathlib.Path:
        return self.folder / "results" / f"{name}.json"

    def finish(self, job: Job) -> None:
        """Runs the job and writes its result, at once and whole."""
        text = json.dumps(job.run(), indent=1)
        path = self.result(job.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").rename(path)


def first_of_each(documents: list[dict], count: int) -> list[dict]:
    """The first so many of each domain; 0: all."""
    seen: dict[str, int] = {}
    kept = []
    for document in documents:
        seen[document["source"]] = seen.get(document["source"], 0) + 1
        if count == 0 or seen[document["source"]] <= count:
            kept.append(document)
    return kept


def one_domain_after_another(by_domain: dict[str, list[dict]], wanted: int) -> list[dict]:
    """Documents in runs of RUN_BYTES of one domain; the domains' order is drawn anew for each round."""
    left = {domain: iter(documents) for domain, documents in by_domain.items()}
    draw = random.Random(1)
    result, used = [], 0
    while left and used < wanted:
        for domain in draw.sample(sorted(left), len(left)):
            size = 0
            for document in left[domain]:
                result.append(document)
                size += len(document["text"].encode())
                if size >= RUN_BYTES:
                    break
            else:
                del left[domain]
            used += size
    return result


class Clock:
    """What is done, and how long the rest will take."""

    def __init__(self, jobs: list[Job], workers: int):
        self.left = {job.name: job.seconds for job in jobs}
        self.total, self.workers = len(jobs), workers
        self.started, self.finished = time.time(), 0.0

    def done(self, job: Job) -> None:
        self.finished += self.left.pop(job.name)
        passed = time.time() - self.started
        pace = passed * self.workers / self.finished   # of the estimates
        left = sum(self.left.values()) * pace / self.workers
        say(f"{self.total - len(self.left)}/{self.total} jobs, {job.name} done, about {left / 60:.0f} min left")


STARTED = time.time()


def say(text: str) -> None:
    print(f"[experiment {int(time.time() - STARTED):5d}s] {text}", file=sys.stderr, flush=True)


def run_all(experiment: Experiment, jobs: list[Job], workers: int) -> None:
    """Runs what has no result yet. The first failure ends it."""
    waiting = [job for job in jobs if not experiment.result(job.name).exists()]
    clock = Clock(waiting, workers)
    if waiting:
        say(f"{len(waiting)} of {len(jobs)} jobs, {workers} at a time, about "
            f"{sum(job.seconds for job in waiting) / workers / 60:.0f} min")
    change = threading.Lock()
    stop: list[Exception] = []

    def work() -> None:
        while True:
            with change:
                if not waiting or stop:
                    return
                job = waiting.pop(0)
            try:
                experiment.finish(job)
            except Exception as error:  # what went wrong is raised where all is waited for
                stop.append(error)
                return
            with change:
                clock.done(job)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for _ in range(workers):
            pool.submit(work)
    if stop:
        raise stop[0]


def parse() -> argparse.Namespace:
    parser = Arguments(__doc__, prog="launch/experiment.sh retention")
    parser.add_argument("--quick", action="store_true", help="one seed, fewer tokens and documents")
    parser.add_argument("--folder", type=pathlib.Path, help="where everything goes (runs/retention, or with --quick "
                        "runs/retention-quick)")
    parser.add_argument("--text", type=pathlib.Path, help="folder with train.jsonl, validation.jsonl and test.jsonl "
                        "of your own, {text, source, id} a line, instead of the Debian packages'")
    parser.add_argument("--tokens", type=int, help="that each model sees, instead of the plan's")
    parser.add_argument("--tuned-domains", type=lambda text: text.split(","), help="domains to tune on, A,B")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="at a time (one a core)")
    return parser.parse_args()


def main() -> int:
    options = parse()
    plan = QUICK if options.quick else FULL
    if options.tokens:
        plan = plan._replace(tokens=options.tokens)
    if options.tuned_domains:
        plan = plan._replace(tuned_domains=options.tuned_domains)
    folder = options.folder or pathlib.Path("runs/retention-quick" if options.quick else "runs/retention")
    settings = folder / "plan.json"
    if settings.exists() and json.loads(settings.read_text()) != plan._asdict():
        print(f"experiment: {folder} was begun with other settings ({settings}); name another --folder", file=sys.stderr)
        return 64
    folder.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(plan._asdict(), indent=1))
    experiment = Experiment(folder, plan, options.text)
    try:
        if not experiment.result("data").exists():
            say("text, tokenizer and token shards")
            experiment.finish(Job("data", 60, experiment.make_data))
        domains = json.loads(experiment.result("data").read_text())["domains"]
        experiment.sweep(max(1, options.jobs))
        run_all(experiment, experiment.jobs(domains), max(1, options.jobs))
    except Stopped:
        print("experiment: stopped; the same command goes on", file=sys.stderr)
        return STOPPED
    except (Failed, subprocess.CalledProcessError) as error:
        print(f"experiment: {error}\nThe same command goes on from there.", file=sys.stderr)
        return 70
    from launch.retention import report  # matplotlib takes seconds to import, and --help does without
    report.write(folder)
    say(f"done: {folder}/report/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
