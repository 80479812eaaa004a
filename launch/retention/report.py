"""Writes report/: retention.json, retention.csv and index.html, one page that needs nothing else."""
import html
import json
import pathlib
import statistics

from launch.report.page import page as page_of, spread as spread_text, table
from launch.retention import plots
from launch.retention.arms import ARMS, KEEPS
from launch.retention.results import (Results, Spread, full_loss, increase, no_routed, overlap_matrix, read, seeds_of,
                                      to_json, write_csv)


def number(spread: Spread, sign: bool = True) -> str:
    return spread_text(spread.mean, spread.deviation, sign)


def percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"


def headline(results: Results) -> str:
    rows = []
    for arm in ARMS:
        if arm not in results.evaluations:
            continue
        row = [arm, len(seeds_of(results, arm)), number(full_loss(results, arm), sign=False)]
        if arm in results.retention:
            row += [number(increase(results, arm, keep=keep)) for keep in KEEPS]
            row += [number(increase(results, arm, keep=keep, weights="full")) for keep in KEEPS[1:]]
            row += [number(increase(results, arm, method="random")), number(no_routed(results, arm))]
        rows.append(row + [""] * (9 - len(row)))
    return table(["model", "seeds", "full loss", *map(percent, KEEPS), *(f"{percent(k)}, full w." for k in KEEPS[1:]),
                  "random 25 %", "no routed"], rows)


def by_domain(results: Results) -> str:
    arms = plots.cut_arms(results)
    rows = []
    for domain in results.data["domains"]:
        row = [domain]
        for arm in arms:
            row += [number(full_loss(results, arm, domain), sign=False),
                    *(number(increase(results, arm, domain, keep=keep)) for keep in KEEPS[1:])]
        rows.append(row)
    return table(["domain", *(text for arm in arms for text in (f"{arm}: full", *map(percent, KEEPS[1:])))], rows)


def tuning(results: Results) -> str:
    domains = results.plan["tuned_domains"]
    found = {(t["arm"], t["keep"], t["domain"]): t for t in results.tuning}
    rows = []
    for arm, keep in dict.fromkeys((t["arm"], t["keep"]) for t in sorted(
            results.tuning, key=lambda t: (ARMS.index(t["arm"]), -t["keep"]))):
        row = [arm, percent(keep)]
        for domain in domains:
            row += [f"{found[arm, keep, domain][when]:.3f}" for when in ("before", "after")]
        rows.append(row)
    return table(["model", "kept", *(f"{domain}, {when}" for domain in domains for when in ("before", "after"))], rows)


def documents(results: Results) -> str:
    return table(["domain", "training tokens", "calibration documents", "test documents"],
                 [[domain, f"{results.data['train']['sources'][domain]['tokens']:,}",
                   results.data["validation"]["sources"][domain]["documents"],
                   results.data["test"]["sources"][domain]["documents"]] for domain in results.data["domains"]])


def mean_overlap(results: Results, arm: str) -> tuple[float, float]:
    """Mean over pairs of domains and over seeds; and of random choices."""
    values, chance = [], []
    for shared in results.overlap[arm].values():
        matrix = overlap_matrix(shared)
        values += [matrix[a][b] for a in range(len(matrix)) for b in range(a)]
        chance.append(shared["pairs"][0]["by_chance"])
    return statistics.fmean(values), statistics.fmean(chance)


def page(results: Results) -> str:
    plan = results.plan
    arms = plots.cut_arms(results)
    overlaps = "; ".join(f"{arm} {mean_overlap(results, arm)[0]:.2f}" for arm in arms)
    return page_of("Retention", f"""<h1>What is left when only a domain's experts are kept</h1>
<p>Each model has seen {plan['tokens']:,} tokens of {len(results.data['domains'])} domains. For each domain its experts are
ranked on calibration documents (<code>emo experts rank</code>), a share of them is kept, and the loss on other documents
of the domain is measured, in nats per token. Figures are increases over the same model with all its experts, the mean
over domains, ± the standard deviation over seeds; losses of models are over all test documents, increases over
{plan['test_documents']} of each domain.</p>
<ul>{"".join(f"<li><b>{arm}</b>: {html.escape(results.about[arm])}</li>" for arm in results.evaluations)}</ul>
{headline(results)}
<p>“full w.”: the kept experts weigh what they do in the full model; otherwise the softmax runs over the kept ones alone,
as in a cut model. “no routed”: only the shared expert is left.</p>
<h2>Retention</h2>{plots.retention(results)}
<p>Left: over the full model. Right: the losses themselves; a small increase over a worse model is worth little.</p>
<h2>By domain</h2>{by_domain(results)}
<h2>How many calibration documents are needed</h2>{plots.calibration(results)}
<h2>Ways to rank</h2>{plots.methods(results)}
<h2>Whose experts</h2>{plots.whose_experts(results)}
<p>A domain evaluated with its own experts, with those of the domain that comes next in the data, with random ones,
and with none but the shared one.</p>
<h2>What domains share</h2>{plots.overlap(results)}
<p>Jaccard overlap of the experts that two domains keep at 25 %, mean over layers; the matrices are of
seed 1. Mean over pairs and seeds: {overlaps};
of random choices {mean_overlap(results, arms[0])[1]:.2f}.</p>
<h2>Before and after tuning on the domain</h2>{tuning(results)}
<p>{plan['tuning_steps']} steps on the domain's training text, nothing frozen, the same for all; test loss of the domain in
nats per token, seed 1.</p>
<h2>Text</h2>{documents(results)}
<p>Again: <code>./launch/experiment.sh retention</code>, with the options that this run had. Numbers: <a href="retention.json">retention.json</a>,
<a href="retention.csv">retention.csv</a>; the arms' sweep: sweep.html in the folder above.</p>
""")


def write(folder: pathlib.Path) -> None:
    """From folder/results to folder/report, which is replaced."""
    results = read(folder)
    report = folder / "report"
    report.mkdir(exist_ok=True)
    (report / "retention.json").write_text(json.dumps(to_json(results), indent=1))
    write_csv(results, report / "retention.csv")
    (report / "index.html").write_text(page(results), encoding="utf-8")
