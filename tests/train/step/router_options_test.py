"""Options of the router that only a run shows: pools that shrink, minima by layer, the balance loss of documents,
noise, selection biases; on other layouts and the device path, and after going on."""
import json
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import Program, check, once, read_folder, run_cases  # noqa: E402

TINY = "configs/tiny.yaml"
STEPS = 6
# A choice of experts within rounding of another may fall otherwise after an update.
TOLERANCE = 1e-5
OPTIONS = ["routing.pool={min: [4, 12], max: 32}", "routing.pool_schedule={steps: 4}", "routing.balance_scope=document",
           "routing.jitter=0.1", "routing.bias_rate=0.01", "train.micro_batches=2"]


def train(emo: Program, name: str, *overrides, ranks: int = 0) -> list[dict]:
    emo.run("train", TINY, f"run.folder={emo.folder / name}", f"train.steps={STEPS}", "checkpoint.every=3",
            "checkpoint.keep=0", "--quiet", *OPTIONS, *overrides, ranks=ranks)
    return [json.loads(line) for line in open(emo.folder / name / "metrics.jsonl")]


@once
def whole(emo: Program) -> list[dict]:
    return train(emo, "whole")


def files_of(emo: Program, name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (emo.folder / name / f"step-{STEPS:07}").glob("*.safetensors")}


def same(found: list[dict], expected: list[dict], what: str) -> None:
    for a, b in zip(found, expected, strict=True):
        for key, value in b.items():
            if not key.startswith("throughput/") and "exchange/" not in key and isinstance(value, float):
                check(abs(a[key] - value) <= TOLERANCE * max(1, abs(value)), f"{what}: {key} {a[key]}, {value}")


def test_pools_shrink_from_all_experts(emo):
    sizes = [[step[f"train/block {layer:02}/pool size"] for step in whole(emo)] for layer in (0, 1)]
    check(sizes[0][0] == 31 and sizes[1][0] == 31, f"the first step has all 31: {sizes}")
    # Steps 2 and 3: {24.25, 31.25} and {17.5, 31.5}, {26.25, 31.25} and {21.5, 31.5}, rounded.
    for layer, (second, third) in enumerate(((24, 18), (26, 22))):
        check(second <= sizes[layer][1] <= 31 and third <= sizes[layer][2] <= 31, f"layer {layer}: {sizes[layer]}")
    check(sizes[0][0] > sizes[0][1] > sizes[0][2] > sizes[0][4], f"{sizes}")
    check(all(b > a for a, b in zip(sizes[0][1:], sizes[1][1:])), f"the second layer's minimum is larger: {sizes}")


def test_the_balance_loss_of_documents_is_near_one_at_first(emo):
    """Pools are all experts, whose choice is nearly even; scattered as the counts of short documents are, it is above."""
    loss = whole(emo)[0]["train/block 00/load balancing loss unscaled"]
    check(1 <= loss < 3, f"{loss}")


def test_other_layouts_and_the_device_compute_the_same(emo):
    for name, ranks, overrides in (("ep", 2, ["parallel.ep=2"]), ("dp", 2, ["parallel.slices=2", "parallel.zero=2"]),
                                   ("slices", 0, ["parallel.slices=3"]), ("device", 0, ["parallel.device=emulated"]),
                                   ("device-dp", 2, ["parallel.device=emulated"])):
        same(train(emo, name, *overrides, ranks=ranks), whole(emo), name)


def test_recomputing_changes_no_bit(emo):
    whole(emo)
    train(emo, "again", "parallel.recompute=block")
    check(files_of(emo, "again") == files_of(emo, "whole"), "other bits")


def test_a_run_goes_on_to_the_bit(emo):
    whole(emo)
    (emo.folder / "parts").mkdir()
    shutil.copytree(emo.folder / "whole/step-0000003", emo.folder / "parts/step-0000003")
    for override in ("routing.jitter=0.2", "routing.pool_schedule={steps: 5}", "routing.balance_scope=micro_batch",
                     "routing.pool={min: [4, 8], max: 32}"):
        key = override.split("=")[0]
        told = emo.run("train", TINY, f"run.folder={emo.folder}/parts", f"train.steps={STEPS}", *OPTIONS, override,
                       expect=64).stderr
        check(f"{key}: was" in told, told)
    train(emo, "parts")
    check(files_of(emo, "parts") == files_of(emo, "whole"), "other bits")


def test_a_folder_says_how_its_model_was_trained(emo):
    whole(emo)
    contract = json.loads((emo.folder / "whole/step-0000006/config.json").read_text())["emo_routing"]
    check(contract["pool"] == {"min": [4, 12], "max": 32, "eval": 18}, f"{contract}")
    check(contract["pool_schedule"] == {"steps": 4} and contract["balance_scope"] == "document", f"{contract}")
    check(contract["jitter"] == 0.1 and contract["bias_rate"] == 0.01, f"{contract}")
    folder = emo.folder / "from"
    told = emo.run("train", TINY, f"run.folder={folder}", f"run.start_from={emo.folder}/whole/step-0000006",
                   "train.steps=1", "routing.bias_rate=0.01", expect=64).stderr
    check("routing.jitter: was 0.1, is 0" in told and "routing.pool: was {min: [4, 12]" in told, told)


def bias_of(tensors: dict[str, tuple], layer: int):
    return tensors[f"model.layers.{layer}.mlp.gate.e_score_correction_bias"]


def test_biases_move_by_the_rate_and_by_nothing_else(emo):
    whole(emo)
    for layer in (0, 1):
        third, last = (bias_of(read_folder(emo.folder / f"whole/step-{step:07}"), layer) for step in (3, STEPS))
        check(third[0] == last[0] == "F32" and third[1].shape == (32,), f"{third}")
        check(third[1][31] == last[1][31] == 0, "the shared expert's moved")
        for bias, steps in ((third[1], 3), (last[1], STEPS)):
            moves = bias / 0.01
            check((abs(moves - moves.round()) < 1e-4).all() and 1 <= abs(moves).max() < steps + 0.1, f"{moves}")
    moments = read_folder(emo.folder / f"whole/step-{STEPS:07}", "optimizer")
    check(not any(numbers.any() for name, (_, numbers) in moments.items() if "correction_bias" in name), "moments")
    train(emo, "frozen", "train.freeze=routed_shared_router")
    check(not bias_of(read_folder(emo.folder / f"frozen/step-{STEPS:07}"), 0)[1].any(), "frozen biases moved")


def test_biases_in_bf16_have_masters_and_go_on_to_the_bit(emo):
    overrides = ["parallel.device=emulated", "parallel.precision=bf16"]
    for ranks, layout in ((0, []), (2, ["parallel.ep=2"])):
        name = f"bf16-{ranks}"
        train(emo, name, *overrides, *layout, ranks=ranks)
        folder = emo.folder / name / f"step-{STEPS:07}"
        master = read_folder(folder, "optimizer")["master/model.layers.0.mlp.gate.e_score_correction_bias"][1]
        moves = master / 0.01
        check(bias_of(read_folder(folder), 0)[0] == "BF16" and (abs(moves - moves.round()) < 1e-4).all(), f"{moves}")
        (emo.folder / f"{name}-again").mkdir()
        shutil.copytree(emo.folder / name / "step-0000003", emo.folder / f"{name}-again/step-0000003")
        train(emo, f"{name}-again", *overrides, *layout, ranks=ranks)
        check(files_of(emo, f"{name}-again") == files_of(emo, name), f"{name}: other bits")


def test_biases_go_where_their_experts_go(emo):
    whole(emo)
    model, subset = emo.folder / f"whole/step-{STEPS:07}", emo.folder / "subset.json"
    kept = [[0, 3, 7, 8, 20, 31], [1, 2, 5, 30, 31]]
    subset.write_text(json.dumps({"experts_kept_per_layer": kept}))
    emo.run("experts", "extract", model, subset, emo.folder / "cut")
    parent, cut = read_folder(model), read_folder(emo.folder / "cut")
    check(json.loads((emo.folder / "cut/config.json").read_text())["selection_bias"] is True, "the cut model's config")
    for layer in (0, 1):
        check((bias_of(cut, layer)[1] == bias_of(parent, layer)[1][kept[layer]]).all(), f"layer {layer}")
    emo.run("experts", "merge", model, emo.folder / "cut", emo.folder / "merged", "--router")
    merged = read_folder(emo.folder / "merged")
    check(all((merged[name][1] == numbers).all() for name, (_, numbers) in parent.items()), "merged")
    emo.run("export", model, emo.folder / "exported")
    check((bias_of(read_folder(emo.folder / "exported"), 0)[1] == bias_of(parent, 0)[1]).all(), "exported")


def test_a_run_begins_with_biases_or_without(emo):
    train(emo, "plain", "routing.bias_rate=0")
    for name, rate, hint in (("plain", 0.01, "have no biases to move"), ("whole", 0, "have biases that it moves")):
        told = emo.run("train", TINY, f"run.folder={emo.folder}/{name}-on", "train.steps=1", *OPTIONS,
                       f"run.start_from={emo.folder}/{name}/step-{STEPS:07}", f"routing.bias_rate={rate}",
                       "run.change_contract=true", expect=64).stderr
        check("routing.bias_rate is" in told and hint in told, told)


if __name__ == "__main__":
    run_cases(globals())
