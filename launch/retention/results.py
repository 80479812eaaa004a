"""What the experiment's jobs measured, put together: retention.json and retention.csv."""
import csv
import json
import pathlib
import statistics
import typing


class Results(typing.NamedTuple):
    plan: dict
    data: dict                              # documents and tokens of train, validation, test
    evaluations: dict[str, dict[int, dict]]  # arm, seed: `emo eval` on all test documents
    retention: dict[str, dict[int, dict]]    # arm, seed: `emo experts retention`
    overlap: dict[str, dict[int, dict]]      # arm, seed: `emo experts compare`
    tuning: list[dict]                       # arm, keep, domain, before, after
    seconds: dict[str, float]                # of training, by arm and seed
    about: dict[str, str]                    # arm, in the order of reports: what it is


def read(folder: pathlib.Path) -> Results:
    def load(path: pathlib.Path):
        return json.loads(path.read_text())

    sweep = load(folder / "sweep.json")
    results = Results(load(folder / "plan.json"), load(folder / "results/data.json"), {}, {}, {}, [], {},
                      {arm["name"]: arm["about"] for arm in sweep["arms"]})
    for run in sweep["runs"]:
        arm, seed = run["arm"], run["seed"]
        results.evaluations.setdefault(arm, {})[seed] = run["eval"]
        results.seconds[f"{arm}-{seed}"] = run["cost"]["training_seconds"]
        if "retention" in run:
            results.retention.setdefault(arm, {})[seed] = run["retention"]
    for path in sorted((folder / "results").glob("*.json")):
        kind, _, rest = path.stem.partition("-")
        if kind == "overlap":
            arm, _, seed = rest.rpartition("-")
            results.overlap.setdefault(arm, {})[int(seed)] = load(path)
        elif kind == "tune":
            results.tuning.append(load(path))
    return results


class Spread(typing.NamedTuple):
    """Values over seeds."""
    values: list[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds; None of one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


CUT_KEYS = ("method", "keep", "documents", "calibrated_on", "weights")


def cut(numbers: dict, method="layerwise", keep=0.25, documents="all", calibrated_on="own", weights="kept") -> dict:
    """The cut of these properties among a model's, or a domain's."""
    wanted = (method, keep, documents, calibrated_on, weights)
    [found] = [c for c in numbers["cuts"] if tuple(c[key] for key in CUT_KEYS) == wanted]
    return found


def increase(results: Results, arm: str, domain: str | None = None, **properties) -> Spread:
    """Nats over the arm's own full loss, of each seed: mean over domains, or one domain's."""
    def numbers(report: dict) -> dict:
        return report if domain is None else report["domains"][domain]
    return Spread([cut(numbers(r), **properties)["increase"] for _, r in sorted(results.retention[arm].items())])


def no_routed(results: Results, arm: str) -> Spread:
    return Spread([r["no_routed_experts"] - r["full"] for _, r in sorted(results.retention[arm].items())])


def full_loss(results: Results, arm: str, domain: str | None = None) -> Spread:
    """Nats per token of the whole model on all test documents; the mean over domains, each with the same weight."""
    def loss(evaluation: dict) -> float:
        sources = evaluation["sources"]
        if domain is not None:
            return sources[domain]["loss"]
        return statistics.fmean(source["loss"] for source in sources.values())
    return Spread([loss(e) for _, e in sorted(results.evaluations[arm].items())])


def seeds_of(results: Results, arm: str) -> list[int]:
    return sorted(results.evaluations[arm])


def to_json(results: Results) -> dict:
    def spread(s: Spread) -> dict:
        return {"mean": s.mean, "standard_deviation": s.deviation, "values": s.values}

    arms = {}
    for arm, about in results.about.items():
        arms[arm] = {"about": about, "seeds": seeds_of(results, arm), "full": spread(full_loss(results, arm)),
                     "full_by_domain": {d: spread(full_loss(results, arm, d)) for d in results.data["domains"]}}
        if arm in results.retention:
            first = next(iter(results.retention[arm].values()))
            arms[arm]["no_routed_experts"] = spread(no_routed(results, arm))
            arms[arm]["cuts"] = []
            for found in first["cuts"]:
                properties = {key: found[key] for key in CUT_KEYS}
                arms[arm]["cuts"].append({
                    **properties, "increase": spread(increase(results, arm, **properties)),
                    "by_domain": {d: spread(increase(results, arm, d, **properties)) for d in first["domains"]}})
            arms[arm]["overlap"] = {
                str(seed): {"domains": o["domains"], "jaccard": overlap_matrix(o), "by_chance": o["pairs"][0]["by_chance"]}
                for seed, o in sorted(results.overlap[arm].items())}
    return {"plan": results.plan, "data": results.data, "arms": arms, "tuning": results.tuning,
            "training_seconds": results.seconds}


def overlap_matrix(overlap: dict) -> list[list[float]]:
    """Jaccard overlap of the domains' experts, in the order of the domains; 1 on the diagonal."""
    names = overlap["domains"]
    matrix = [[1.0] * len(names) for _ in names]
    pairs = iter(overlap["pairs"])
    for a in range(len(names)):
        for b in range(a + 1, len(names)):
            matrix[a][b] = matrix[b][a] = next(pairs)["jaccard"]
    return matrix


def write_csv(results: Results, path: pathlib.Path) -> None:
    """A row for each arm, seed, domain ("mean": of all) and cut; nats per token."""
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["arm", "seed", "domain", *CUT_KEYS, "loss", "increase", "full"])
        for arm, seeds in results.retention.items():
            for seed, report in seeds.items():
                for domain, numbers in [("mean", report), *sorted(report["domains"].items())]:
                    rows.writerow([arm, seed, domain, "none", 1.0, "", "", "", numbers["full"], 0.0, numbers["full"]])
                    rows.writerow([arm, seed, domain, "no routed experts", 0.0, "", "", "", numbers["no_routed_experts"],
                                   numbers["no_routed_experts"] - numbers["full"], numbers["full"]])
                    for c in numbers["cuts"]:
                        rows.writerow([arm, seed, domain, *(c[key] for key in CUT_KEYS), c["loss"], c["increase"],
                                       numbers["full"]])
