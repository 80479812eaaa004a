"""Writes sweep.html, one page that needs nothing else, from the sweep.json and sweep.csv of a sweep's folder.

Example: build/python/bin/python launch/report/sweep_page.py runs/pools
"""
import base64
import html
import json
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from launch.arguments import Arguments  # noqa: E402

# Okabe and Ito's palette, which people with any colour vision tell apart; the baseline is black.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
MARKERS = "osD^vPX*"
FEW = 8   # arms that have room for their names beside their points


def style(sweep: dict, arm: dict) -> dict:
    """Colour and marker of an arm; with more arms than colours, markers tell them apart, and labels always do."""
    if arm["name"] == sweep["baseline"]:
        return {"color": "black", "marker": "s"}
    number = [a["name"] for a in sweep["arms"] if a["name"] != sweep["baseline"]].index(arm["name"])
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number // len(COLOURS) % len(MARKERS)]}


def done(sweep: dict) -> list[dict]:
    return [arm for arm in sweep["arms"] if arm["full"]["mean"] is not None]


def main_cuts(arm: dict) -> list[dict]:
    return [cut for cut in arm["cuts"] if cut["main"]]


def deviation_of(value: dict) -> float | None:
    return value["standard_deviation"]


def height_for(arms: list[dict]) -> float:
    """Of a plot, in inches: so that as many labels have room."""
    return max(4.2, 0.19 * len(arms) + 1)


def labels(axes, names: list[str], x: list[float], y: list[float], colours: list[str], above: float = 0) -> None:
    """Names to the right of their points, so many points above them, and apart where they would overlap."""
    from launch.report.page import apart
    axes.figure.canvas.draw()
    to_pixels, back = axes.transData.transform, axes.transData.inverted().transform
    pixels = [to_pixels(at) for at in zip(x, y)]
    point = axes.figure.dpi / 72
    heights = apart([p[1] + above * point for p in pixels], 12 * point)
    edge = axes.bbox.x1 if len(names) > FEW else 0   # of many the names stand in a column of their own
    for name, (right, at), height, colour in zip(names, pixels, heights, colours):
        place = back((max(right, edge) + 7 * point, height))
        moved = edge > right + 20 * point or abs(height - at - above * point) > 3 * point
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.4} if moved else None
        axes.annotate(name, back((right, at)), place, color=colour, fontsize=9, va="center", arrowprops=line,
                      annotation_clip=False)


def full_against_increase(sweep: dict) -> str:
    from launch.report.page import pyplot, to_svg
    arms = [arm for arm in done(sweep) if main_cuts(arm)]
    keeps = [cut["kept"] for cut in main_cuts(arms[0])]
    figure, panels = pyplot.subplots(1, len(keeps), figsize=(max(5.0, (4.6 if len(arms) <= FEW else 6.4) * len(keeps)), height_for(arms)), squeeze=False)
    for number, (axes, keep) in enumerate(zip(panels[0], keeps)):
        for arm in arms:
            rise = main_cuts(arm)[number]["increase"]
            axes.errorbar(arm["full"]["mean"], rise["mean"], xerr=deviation_of(arm["full"]), yerr=deviation_of(rise),
                          capsize=3, markersize=6, linestyle="none", **style(sweep, arm))
        axes.set_xlabel("loss of the whole model, nats per token")
        axes.set_title(f"{keep} of the experts kept" if keep.endswith("%") else f"{keep} kept", fontsize=10)
        axes.margins(x=0.25 if len(arms) <= FEW else 0.05, y=0.12)
        labels(axes, [arm["name"] for arm in arms], [arm["full"]["mean"] for arm in arms],
                     [main_cuts(arm)[number]["increase"]["mean"] for arm in arms], [style(sweep, arm)["color"] for arm in arms], above=7)
    panels[0][0].set_ylabel("increase over the whole model, nats per token")
    return to_svg(figure, "Loss of the whole model against the increase when experts are cut, for each arm")


def retention_curves(sweep: dict) -> str:
    from launch.report.page import pyplot, to_svg
    arms = [arm for arm in done(sweep) if main_cuts(arm)]
    keeps = ["all", *(cut["kept"] for cut in main_cuts(arms[0]))]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, height_for(arms)))
    ends: dict[str, list] = {"left": [], "right": []}
    for arm in arms:
        cuts = main_cuts(arm)
        look = {**style(sweep, arm), "markersize": 5, "capsize": 3}
        rises = [0.0, *(cut["increase"]["mean"] for cut in cuts)]
        losses = [arm["full"]["mean"], *(cut["loss"]["mean"] for cut in cuts)]
        several = deviation_of(arm["full"]) is not None
        left.errorbar(range(len(keeps)), rises, color=look["color"], marker=look["marker"], markersize=5, capsize=3,
                      yerr=[0.0, *(deviation_of(cut["increase"]) for cut in cuts)] if several else None)
        right.errorbar(range(len(keeps)), losses, color=look["color"], marker=look["marker"], markersize=5, capsize=3,
                       yerr=[deviation_of(arm["full"]), *(deviation_of(cut["loss"]) for cut in cuts)] if several else None)
        ends["left"].append(rises[-1])
        ends["right"].append(losses[-1])
    left.set_ylabel("increase over the whole model, nats per token")
    right.set_ylabel("test loss, nats per token")
    for axes, side in ((left, "left"), (right, "right")):
        axes.set_xticks(range(len(keeps)), keeps)
        axes.set_xlabel("experts kept")
        axes.set_xlim(-0.2, len(keeps) - 0.3)
        labels(axes, [arm["name"] for arm in arms], [len(keeps) - 1] * len(arms), ends[side],
                     [style(sweep, arm)["color"] for arm in arms])
    return to_svg(figure, "Loss by share of experts kept, for each arm")


def differences(sweep: dict) -> str:
    """Each arm less the baseline, with the interval that decides."""
    from launch.report.page import pyplot, to_svg
    arms = [arm for arm in done(sweep) if arm["full_against_baseline"]]
    columns = [("whole model", lambda arm: arm["full_against_baseline"])]
    cut = max((main_cuts(arm) for arm in arms), key=len)
    for number in range(len(cut)):
        columns.append((f"{cut[number]['kept']} kept", lambda arm, n=number: main_cuts(arm)[n]["loss_against_baseline"]
                        if len(main_cuts(arm)) > n else None))
    figure, panels = pyplot.subplots(1, len(columns), figsize=(max(5.0, 3.4 * len(columns)), 1.2 + 0.32 * len(arms)),
                                     sharey=True, squeeze=False)
    for axes, (title, pick) in zip(panels[0], columns):
        axes.axvline(0, color="black", linewidth=0.8)
        for row, arm in enumerate(reversed(arms)):
            found = pick(arm)
            if not found:
                continue
            interval = found["interval"]
            reach = [[found["difference"] - interval["low"]], [interval["high"] - found["difference"]]] if interval else None
            axes.errorbar(found["difference"], row, xerr=reach, capsize=3, markersize=6, **style(sweep, arm))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("nats per token")
        axes.set_yticks(range(len(arms)), [arm["name"] for arm in reversed(arms)])
        axes.set_ylim(-0.6, len(arms) - 0.4)
    return to_svg(figure, f"Loss of each arm less that of {sweep['baseline']}, with intervals that hold it 95 times of 100")


def numbers(sweep: dict) -> str:
    from launch.report.page import spread, table
    arms = done(sweep)
    keeps = [cut["kept"] for cut in max((main_cuts(arm) for arm in arms), key=len)]
    rows = []
    for arm in arms:
        found = arm["full_against_baseline"]
        interval = found and found["interval"]
        beside = (f"{found['difference']:+.3f} ({interval['low']:+.3f} to {interval['high']:+.3f})" if interval else
                  "baseline" if arm["name"] == sweep["baseline"] else "")
        cuts = [spread(cut["increase"]["mean"], deviation_of(cut["increase"])) for cut in main_cuts(arm)]
        rows.append([arm["name"], f"{len(arm['full']['by_seed'])}/{len(arm['seeds'])}",
                     spread(arm["full"]["mean"], deviation_of(arm["full"]), sign=False), beside,
                     *cuts, *[""] * (len(keeps) - len(cuts))])
    return table(["arm", "seeds done", "loss of the whole model", "less the baseline's (95 %)",
                  *(f"increase, {keep} kept" for keep in keeps)], rows)


def by_domain(sweep: dict) -> str:
    from launch.report.page import table
    arms = done(sweep)
    runs = {arm["name"]: [run for run in sweep["runs"] if run["arm"] == arm["name"] and run["state"] == "done"] for arm in arms}
    domains = list(runs[arms[0]["name"]][0]["eval"]["sources"])
    rows = []

    def mean(values: list, sign: str) -> str:
        known = [value for value in values if value is not None]
        return format(statistics.fmean(known), f"{sign}.3f") if known else ""

    for domain in domains:
        row = [domain]
        for arm in arms:
            of = runs[arm["name"]]
            row.append(mean([run["eval"]["sources"][domain]["loss"] for run in of], ""))
            for cut in main_cuts(arm):
                number = arm["cuts"].index(cut)
                row.append(mean([run["retention"]["domains"][domain]["cuts"][number]["increase"] for run in of
                                 if domain in run["retention"]["domains"]], "+"))
        rows.append(row)
    return table(["domain", *(text for arm in arms for text in
                              (arm["name"], *(cut["kept"] for cut in main_cuts(arm))))], rows)


def tasks(sweep: dict) -> str:
    from launch.report.page import spread, table
    arms = done(sweep)
    names = list(arms[0]["tasks"])
    return table(["task", "metric", *(arm["name"] for arm in arms)],
                 [[name, arms[0]["tasks"][name]["metric"],
                   *(spread(arm["tasks"][name]["mean"], deviation_of(arm["tasks"][name]), sign=False) for arm in arms)]
                  for name in names])


def cost(sweep: dict) -> str:
    from launch.report.page import table

    def number(value: float | None, digits: int, scale: float = 1) -> str:
        return "" if value is None else f"{value * scale:,.{digits}f}"

    rows = [[arm["name"], number(c["tokens_per_second"], 0), number(c["copies_per_token"], 2),
             number(c["copies_per_token_placed"], 2), number(c["load_imbalance"], 2), number(c["peak_memory_bytes"], 0, 1e-6),
             number(c["training_seconds"], 0), number(c["measuring_seconds"], 0)]
            for arm in done(sweep) for c in [arm["cost"]]]
    return table(["arm", "tokens/s", f"copies to {sweep['measure']['copies_on']} ranks", "the same, experts placed",
                  "load imbalance", "memory, MB", "training, s", "measuring, s"], rows)


def failures(sweep: dict) -> str:
    parts = []
    for run in sweep["runs"]:
        if run["state"] == "failed":
            parts.append(f"<p>{html.escape(run['arm'])} seed {run['seed']} failed:</p><pre>{html.escape(run['error'])}</pre>")
    missing = [f"{run['arm']} seed {run['seed']}" for run in sweep["runs"] if run["state"] == "missing"]
    if missing:
        parts.append(f"<p>Not done yet: {html.escape(', '.join(missing))}. The same command goes on with them.</p>")
    return f'<div class="wrong"><h2>What is missing</h2>{"".join(parts)}</div>' if parts else ""


def what_was_run(sweep: dict) -> str:
    from launch.report.page import table
    return table(["arm", "what makes it", "about"],
                 [[arm["name"], ", ".join(f"{key}={value}" for key, value in arm["overrides"].items()) or "the base itself",
                   arm["about"]] for arm in sweep["arms"]])


def body(sweep: dict, csv: bytes) -> str:
    title = pathlib.PurePath(sweep["sweep"]).name
    parts = [f"<h1>Sweep: {html.escape(title)}</h1>", failures(sweep)]
    if not done(sweep):
        parts.append("<p>No run is done, so there is nothing to compare and nothing to draw.</p>")
        return "\n".join([*parts, "<h2>What was to be run</h2>", what_was_run(sweep)])
    sentences = [arm["sentence"] for arm in sweep["arms"] if arm["sentence"]]
    said = f"<ul>{''.join(f'<li>{html.escape(sentence)}</li>' for sentence in sentences)}</ul>"
    if len(sentences) > FEW:  # the table comes first where they are many
        said = f"<details><summary>In words, arm by arm</summary>{said}</details>"
    parts += [said, numbers(sweep),
              f"<p>Test loss in nats per token, mean over domains ± standard deviation over seeds; what is in parentheses holds the "
              f"difference to {html.escape(sweep['baseline'])} 95 times of 100, of runs of the same seed, which begin with the same "
              f"weights and see the data in the same order. It is over seeds (t) where there are two or more, else over "
              f"documents (bootstrap). Of twenty comparisons one is outside by chance.</p>"]
    if any(arm["full_against_baseline"] for arm in done(sweep)):
        parts += [f"<h2>Beside {html.escape(sweep['baseline'])}</h2>", differences(sweep),
                  "<p>Left of the line is better.</p>"]
    if any(main_cuts(arm) for arm in done(sweep)):
        parts += ["<h2>What a good whole model costs when it is cut</h2>", full_against_increase(sweep),
                  "<p>Down and to the left is better. Bars are standard deviations over seeds.</p>",
                  "<h2>Retention</h2>", retention_curves(sweep),
                  f"<p>Experts ranked by {html.escape(sweep['measure']['methods'][0])} on all calibration documents of the "
                  f"domain, the softmax over the kept ones. A small increase over a worse model is worth little: the losses "
                  f"themselves are on the right.</p>"]
    encoded = base64.b64encode(csv).decode()
    parts += ["<h2>By domain</h2>", by_domain(sweep), "<p>Loss of the whole model, and its increase; means over seeds.</p>"]
    if done(sweep)[0]["tasks"]:
        parts += ["<h2>Answers to tasks</h2>", tasks(sweep), "<p>Mean ± standard deviation over seeds, of the whole model.</p>"]
    parts += ["<h2>Cost</h2>", cost(sweep),
              "<p>Tokens a second of training, with what else ran beside it; copies of a token that would travel to other ranks, "
              "with experts in order and as emo experts place puts them; tokens of the busiest expert over the mean.</p>",
              "<h2>What was run</h2>", what_was_run(sweep),
              f'<p>All numbers: <a download="sweep.csv" href="data:text/csv;base64,{encoded}">sweep.csv</a>; losses of '
              f"documents stand in sweep.json.</p>"]
    return "\n".join(parts)


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("folder", type=pathlib.Path, help="of emo sweep, with sweep.json and sweep.csv")
    folder = parser.parse_args().folder
    sweep = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    from launch.report.page import page  # matplotlib takes seconds to import, and --help does without
    text = page(f"Sweep: {sweep['sweep']}", body(sweep, (folder / "sweep.csv").read_bytes()))
    new = folder / "sweep.html.new"
    new.write_text(text, encoding="utf-8")
    new.rename(folder / "sweep.html")


if __name__ == "__main__":
    main()
