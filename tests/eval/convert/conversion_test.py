"""Hugging Face folders: export, import, our Python classes under several releases of transformers, among them the
newest that pip gives, OLMoE folders in both directions, and what is refused.
Usage: conversion_test.py EMO [PART OF A CASE'S NAME]"""
import functools
import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import time
import traceback

import numpy
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import ROOT, Program, check, read_folder, write_tokenizer  # noqa: E402

TOLERANCE = 1e-4
FOLDERS = {"4.57": ["transformers-4"], "5.0": ["transformers-5.0", "transformers-5"], "5.23": ["transformers-5"],
           "newest": ["transformers-newest", "transformers-5"]}  # of build/


class Side:
    """transformers_side.py, running with one release of transformers."""

    def __init__(self, emo: Program, release: str):
        newest = None
        if release == "newest":
            command = [str(ROOT / "launch/setup_transformers.sh"), "newest"]
            asked = subprocess.run(command, capture_output=True, text=True)
            check(asked.returncode == 0, f"the newest transformers was not tested: it is not known\n{asked.stderr[-2000:]}")
            newest = asked.stdout.split()[-1]
            print(f"the newest transformers that pip gives: {newest}", flush=True)
        path = ":".join(str(ROOT / "build" / name) for name in FOLDERS[release])
        environment = dict(os.environ, LD_LIBRARY_PATH=str(ROOT / "build/absent-cuda"), OMP_NUM_THREADS="1",
                           PYTHONPATH=path, HF_HOME=str(emo.folder / f"home-{release}"), HF_HUB_OFFLINE="1")
        self.release = release
        self.errors = open(emo.folder / f"errors-{release}.txt", "w+")
        self.process = subprocess.Popen([sys.executable, str(ROOT / "tests/eval/convert/transformers_side.py")],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                        env=environment)
        version = self.ask("version")
        check(version == newest if newest else version.startswith(release), f"{release}: {version}, pip gave {newest}")

    def ask(self, action, *arguments):
        print(json.dumps([action, *map(str, arguments)]), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise AssertionError(f"transformers {self.release}: {action}: ended: {self.errors.read()[-3000:]}")
        answer = json.loads(line)
        check("error" not in answer, f"transformers {self.release}: {action} {arguments}:\n{answer.get('error')}")
        return answer["answer"]


@functools.cache
def side(emo: Program, release: str) -> Side:
    return Side(emo, release)


def in_every_release(test):
    """test(emo, release) as one case for each release."""
    for release in FOLDERS:
        globals()[f"test_{test.__name__}_{release}"] = functools.partial(test, release=release)
    return test


def logits(emo, model, ids, ends=None, *options, **more):
    """Ours, for [B, S] tokens."""
    tensors = {"input_ids": numpy.asarray(ids, dtype=numpy.int64)}
    if ends is not None:
        tensors["document_ends"] = numpy.asarray(ends, dtype=numpy.int64)
    given, out = emo.folder / "given.safetensors", emo.folder / "answered.safetensors"
    save_file(tensors, str(given))
    emo.run("logits", model, "--tokens", given, "--output", out, "--overwrite", *options, **more)
    return load_file(str(out))["logits"]


def greedy(emo, model, prompt, count):
    """By computing everything again for every token."""
    tokens = list(map(int, prompt))
    for _ in range(count):
        tokens.append(int(logits(emo, model, [tokens])[0, -1].argmax()))
    return tokens[len(prompt):]


def largest(difference) -> float:
    return float(numpy.abs(difference).max())


@functools.cache
def trained(emo):
    """The folder of a trained model, and how many tokens its tokenizer has; beside it one without experts, and one
    with a dense layer, one with selection biases."""
    folder = emo.folder
    write_tokenizer(folder / "tokenizer.json", merges=100)
    with open(folder / "texts.jsonl", "w") as file:
        for i in range(60):
            file.write(json.dumps({"text": "one two three " * (1 + i % 7)}) + "\n")
    emo.run("prepare", "--tokenizer", folder / "tokenizer.json", "--output", folder / "data", folder / "texts.jsonl")
    vocabulary = json.loads((folder / "data/dataset.json").read_text())["vocab_size"]
    run = ["train", "configs/tiny.yaml", f"data.path={folder}/data", "data.synthetic=none", "model.vocab_size=400",
           "data.sequence_length=64", "train.steps=3", "model.init_std=0.2", "--quiet"]
    emo.run(*run, f"run.folder={folder}/emo")
    emo.run(*run, f"run.folder={folder}/dense", "model.dense_layers=all", "model.d_ffn=96", "routing.pool=none")
    emo.run(*run, f"run.folder={folder}/mixed", "model.dense_layers=[0]", "model.d_ffn=96")
    emo.run(*run, f"run.folder={folder}/biased", "routing.bias_rate=0.02")
    return folder / "emo/step-0000003", vocabulary


@functools.cache
def exported(emo):
    model, vocabulary = trained(emo)
    emo.run("export", model, emo.folder / "exported", "--dtype", "bf16", "--max-shard-size", 100_000,
            "--vocab-size", vocabulary)
    return emo.folder / "exported"


@functools.cache
def two_shared(emo):
    emo.run("import", "tests/golden/made_two_shared", emo.folder / "two")
    emo.run("export", emo.folder / "two", emo.folder / "two-out", "--force")
    return emo.folder / "two-out"


@functools.cache
def of_0_1_0(emo, name):
    """What version 0.1.0 wrote, with the Python files of this one."""
    out = emo.folder / f"0.1.0-{name.replace('/', '-')}"
    emo.run("export", ROOT / "tests/golden/compat/0.1.0" / name, out)
    return out


@functools.cache
def olmoe(emo, release):
    """An OLMoE folder, as that release writes it, and what we import of it."""
    there, here = (emo.folder / f"olmoe-{release}-{name}" for name in ("there", "here"))
    side(emo, release).ask("make-olmoe", there)
    report = emo.json("import", there, here)
    check(report["contract"] == "unstated" and report["num_experts"] == 9, str(report))
    return there, here


@functools.cache
def expected(emo, model, vocabulary):
    """The file of inputs and of our logits; our greedy text of the first row's first five tokens."""
    ids = numpy.random.default_rng(7).integers(1, vocabulary, (3, 21))
    ends = [4, 13, 21, 42, 43, 50, 63]
    path = emo.folder / f"expected-{model.parent.name}-{model.name}.safetensors"
    save_file({"input_ids": ids, "document_ends": numpy.array(ends), "rows": logits(emo, model, ids),
               "documents": logits(emo, model, ids, ends)}, str(path))
    return path, greedy(emo, model, ids[0, :5], 8)


@in_every_release
def our_classes(emo, release):
    """Logits, masks, caches and greedy text of folders of model_type emo."""
    model, vocabulary = trained(emo)
    for folder, tokens in ((model, vocabulary), (two_shared(emo), 60), (emo.folder / "dense/step-0000003", vocabulary),
                           (emo.folder / "mixed/step-0000003", vocabulary),
                           (emo.folder / "biased/step-0000003", vocabulary), (of_0_1_0(emo, "cut"), 320)):
        path, text = expected(emo, folder, tokens)
        side(emo, release).ask("compare", folder, path)
        found = side(emo, release).ask("generate", folder, path)
        check(found == text, f"{folder}: greedy {found}, expected {text}")


@in_every_release
def arguments(emo, release):
    side(emo, release).ask("arguments", of_0_1_0(emo, "cut"))


@in_every_release
def layers_with_their_own_experts(emo, release):
    side(emo, release).ask("cut", trained(emo)[0], emo.folder / f"cut-{release}")


@in_every_release
def olmoe_there_and_back(emo, release):
    there, here = olmoe(emo, release)
    back = emo.folder / f"olmoe-{release}-back"
    ids = numpy.random.default_rng(3).integers(0, 97, (2, 33))
    given, wanted = emo.folder / "ids.safetensors", emo.folder / "wanted.safetensors"
    save_file({"input_ids": ids}, str(given))
    side(emo, release).ask("logits", there, given, wanted)
    wanted = load_file(str(wanted))["logits"]
    check(largest(wanted) > 0.5, "logits are all but zero")
    check(largest(logits(emo, here, ids) - wanted) < TOLERANCE, "an OLMoE computed here")
    check(largest(logits(emo, here, ids, None, "--ep", 2, ranks=2) - wanted) < TOLERANCE, "on two ranks")
    path, text = expected(emo, here, 97)
    side(emo, release).ask("compare", here, path)
    found = side(emo, release).ask("generate", here, path)
    check(found == text, f"greedy {found}, expected {text}")
    emo.run("export", here, back, "--as", "olmoe")
    again = emo.folder / "again.safetensors"
    side(emo, release).ask("logits", back, given, again)
    check(largest(load_file(str(again))["logits"] - wanted) < TOLERANCE, "and back")
    # transformers trains no row of the padding token, which is 1 here, and the end token's like all others.
    rows = side(emo, release).ask("trained-rows", back)
    check(rows == [row for row in range(96) if row != 1], f"{rows}: the last token predicts nothing")


@in_every_release
def tokenizer(emo, release):
    text = "a cat, and two hats"
    found = side(emo, release).ask("tokenize", exported(emo), text)
    wanted = Tokenizer.from_file(str(emo.folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    check(found == {"ids": wanted, "eos": "<|endoftext|>", "fields": ["attention_mask", "input_ids"]},
          f"{found}, expected {wanted}")


@in_every_release
def saved_again(emo, release):
    """What transformers saves is the same model with the same tokenizer, for data that 0.1.0 prepared too."""
    model, saved = of_0_1_0(emo, "one/step-0000006"), emo.folder / f"saved-{release}"
    side(emo, release).ask("save", model, saved)
    data = ROOT / "tests/golden/compat/0.1.0/data/test"
    loss = emo.json("eval", saved, "--data", data)["loss"]
    check(abs(loss - emo.json("eval", model, "--data", data)["loss"]) < 1e-6, f"loss {loss}")
    # And data that is prepared with the tokenizer as transformers writes it is the model's.
    trained(emo)
    emo.run("prepare", "--tokenizer", saved / "tokenizer.json", "--output", emo.folder / f"data-{release}",
            emo.folder / "texts.jsonl")
    emo.run("eval", model, "--data", emo.folder / f"data-{release}")


def test_export(emo):
    """Types, shards, vocabulary, files; and that exporting twice gives the same bytes."""
    model, tokenizer_size = trained(emo)
    out = exported(emo)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    check(len(shards) > 3 and all((out / s).exists() for s in shards), f"shards {shards}")
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                 "special_tokens_map.json", "configuration_emo.py", "modeling_emo.py", "MANIFEST"):
        check((out / name).exists(), f"no {name}")
    config = json.loads((out / "config.json").read_text())
    for key, value in {"model_type": "emo", "architectures": ["EmoForCausalLM"], "vocab_size": tokenizer_size,
                       "norm_topk_prob": False, "tie_word_embeddings": False, "rope_scaling": None,
                       "output_router_logits": True, "num_shared_experts": 1, "torch_dtype": "bfloat16"}.items():
        check(config[key] == value, f"config {key}: {config[key]}, expected {value}")
    check(config["auto_map"]["AutoModelForCausalLM"] == "modeling_emo.EmoForCausalLM", "auto_map")
    generation = json.loads((out / "generation_config.json").read_text())
    check(generation["do_sample"] is True and config["eos_token_id"] in generation["eos_token_id"], str(generation))
    manifest = {f["name"] for f in json.loads((out / "MANIFEST").read_text())["files"]}
    check(manifest == {p.name for p in out.iterdir()} - {"MANIFEST"}, "MANIFEST does not cover the folder")
    emo.run("export", model, out, expect=73)
    twin = emo.folder / "twin"
    report = emo.json("export", model, twin, "--dtype", "bf16", "--max-shard-size", 100_000, "--vocab-size",
                      tokenizer_size)
    check(report["vocab_size"] == tokenizer_size, report)
    for path in out.iterdir():
        check(path.read_bytes() == (twin / path.name).read_bytes(), f"{path.name} differs between equal exports")
    ids = numpy.random.default_rng(5).integers(1, tokenizer_size, (2, 30))
    full, cut = logits(emo, model, ids), logits(emo, out, ids)
    check(cut.shape[-1] == tokenizer_size, f"{cut.shape}")
    before, after = read_folder(model), read_folder(out)
    check(set(before) == set(after), "tensors")
    for name, (dtype, data) in after.items():
        bits = before[name][1].view(numpy.uint32)[: data.size].astype(numpy.uint64)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)
        check(dtype == "BF16" and (data == rounded).all(), f"{name} is not rounded to bf16")
    padded = emo.folder / "padded"
    emo.run("export", model, padded, "--vocab-size", tokenizer_size + 500)
    wide = logits(emo, padded, ids)
    stored = full.shape[-1]
    check(largest(wide[:, :, :stored] - full) < 1e-5 and largest(wide[:, :, stored:]) == 0, "padding")
    emo.run("export", model, emo.folder / "no", "--vocab-size", 2, expect=64)
    emo.run("export", emo.folder / "nowhere", emo.folder / "no2", expect=66)
    emo.run("export", model, emo.folder / "no3", "--as", "olmoe", expect=64)


def test_the_contract_survives_both_ways(emo):
    imported = emo.folder / "imported"
    emo.run("import", exported(emo), imported)
    contract = json.loads((imported / "config.json").read_text())["emo_routing"]
    check(contract == json.loads((trained(emo)[0] / "config.json").read_text())["emo_routing"], str(contract))


SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id")


def change_json(path, **values):
    """Sets keys; a value of ... takes the key away."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def special_tokens(folder):
    config = json.loads((folder / "config.json").read_text())
    return [config[key] for key in SPECIAL]


def test_special_tokens_stay_those_of_the_source(emo):
    emo.run("export", emo.folder / "dense/step-0000003", emo.folder / "dense-out", "--as", "olmo2_noqknorm_prenorm")
    there, _ = olmoe(emo, "5.23")
    for number, (source, architecture) in enumerate(((exported(emo), "emo"), (there, "olmoe"),
                                                     (emo.folder / "dense-out", "olmo2_noqknorm_prenorm"))):
        for stated in ([5, 7, [9, 3]], [None, None, 4], [2, None, None]):
            copy, here, back = (emo.folder / f"special-{number}-{stated[0]}-{name}"
                                for name in ("copy", "here", "back"))
            shutil.copytree(source, copy)
            change_json(copy / "config.json", **dict(zip(SPECIAL, stated)))
            generation = {"eos_token_id": [3, 4], "pad_token_id": 6, "temperature": 0.5}
            (copy / "generation_config.json").write_text(json.dumps(generation))
            emo.run("import", copy, here)
            emo.run("export", here, back, "--as", architecture)
            for folder in (here, back):
                check(special_tokens(folder) == stated, f"{folder}: {special_tokens(folder)}, the source says {stated}")
                check(json.loads((folder / "generation_config.json").read_text()) == generation, f"{folder}: generated")
    error = emo.run("export", emo.folder / "special-1-5-here", emo.folder / "no4", "--vocab-size", 9, expect=64).stderr
    check("special token 9" in error, error)


def test_special_tokens_that_nobody_states(emo):
    """The end token pads in generate(), and no row of the embedding stays untrained for it."""
    for name in ("emo", "dense"):
        out = emo.folder / f"nobody-{name}"
        emo.run("export", emo.folder / name / "step-0000003", out)
        pad, bos, eos = special_tokens(out)
        check(pad is None and bos is None, f"{out}: padding {pad}, begin {bos}")
        generation = json.loads((out / "generation_config.json").read_text())
        check(generation == {"do_sample": True, "eos_token_id": [eos], "pad_token_id": eos}, str(generation))
    back = emo.folder / "nobody-olmoe"
    emo.run("export", trained_from_import(emo), back, "--as", "olmoe")
    check(special_tokens(back)[0] is None, str(special_tokens(back)))
    rows = side(emo, "5.23").ask("trained-rows", back)
    check(rows == list(range(96)), f"{rows}")
    # What an OLMoE config leaves out, its class says.
    copy = emo.folder / "left-out"
    shutil.copytree(olmoe(emo, "5.23")[0], copy)
    change_json(copy / "config.json", **dict.fromkeys(SPECIAL, ...))
    emo.run("import", copy, emo.folder / "left-out-here")
    check(special_tokens(emo.folder / "left-out-here") == [1, None, 50279], "the class's defaults")


def test_padding_token_of_the_tokenizer(emo):
    model = emo.folder / "padded-model"
    shutil.copytree(trained(emo)[0], model)
    content = json.loads((model / "tokenizer.json").read_text())
    token = content["added_tokens"][0]
    content["added_tokens"].append(token | {"id": 399, "content": "<|pad|>"})
    (model / "tokenizer.json").write_text(json.dumps(content))
    emo.run("export", model, emo.folder / "padded-out")
    check(special_tokens(emo.folder / "padded-out")[0] == 399, str(special_tokens(emo.folder / "padded-out")))
    generation = json.loads((emo.folder / "padded-out/generation_config.json").read_text())
    check(generation["pad_token_id"] == 399, str(generation))


def test_several_shared_experts_need_force(emo):
    two_shared(emo)
    error = emo.run("export", emo.folder / "two", emo.folder / "two-refused", expect=64).stderr
    check("2 shared experts" in error and "--force" in error, error)


def rewrite(folder, change):
    """Changes the tensors of a folder with one file."""
    tensors = load_file(str(folder / "model.safetensors"))
    change(tensors)
    save_file(tensors, str(folder / "model.safetensors"), {"format": "pt"})


def test_refusals(emo):
    """Everything wrong is in one error."""
    good, _ = olmoe(emo, "5.23")

    def broken(name):
        copy = emo.folder / f"broken-{name}"
        shutil.copytree(good, copy)
        return copy

    def importing(folder, code):
        return emo.run("import", folder, emo.folder / "never", expect=code).stderr

    folder = broken("tensors")

    def spoil(tensors):
        del tensors["model.layers.0.self_attn.q_norm.weight"]
        tensors["model.layers.1.mlp.gate.weight"] = tensors["model.layers.1.mlp.gate.weight"][:4].copy()
        tensors["model.layers.7.extra"] = numpy.zeros(3, dtype=numpy.float32)
        tensors["lm_head.weight"] = tensors["lm_head.weight"].astype(numpy.float64)
    rewrite(folder, spoil)
    error = importing(folder, 65)
    for part in ("q_norm.weight is missing", "model.layers.1.mlp.gate.weight is F32 [4, 48]", "[9, 48]",
                 "model.layers.7.extra is not part of this model", "lm_head.weight is F64"):
        check(part in error, f"'{part}' is not in: {error}")

    folder = broken("index")
    tensors = load_file(str(folder / "model.safetensors"))
    names = sorted(tensors)
    weight_map = dict.fromkeys(names, "model.safetensors")
    weight_map[names[0]] = "../secret.safetensors"
    weight_map[names[1]] = "/etc/passwd"
    weight_map["not.there"] = "model.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    error = importing(folder, 65)
    for part in (names[0], names[1], "not.there is not in model.safetensors", "no file of this folder"):
        check(part in error, f"'{part}' is not in: {error}")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, "gone.safetensors")}))
    check("gone.safetensors" in importing(folder, 66), "a missing file of the index")

    folder = broken("config")
    config = json.loads((folder / "config.json").read_text())
    config.update(clip_qkv=8.0, num_key_value_heads=2, norm_topk_prob=True, tie_word_embeddings=True,
                  rope_scaling={"rope_type": "yarn", "factor": 2.0})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    error = importing(folder, 65)
    for part in ("clip_qkv", "grouped queries", "norm_topk_prob", "tie_word_embeddings", "yarn", "model.safetensors"):
        check(part in error, f"'{part}' is not in: {error}")
    emo_folder = emo.folder / "broken-shared"
    shutil.copytree(two_shared(emo), emo_folder)
    change_json(emo_folder / "config.json", num_shared_experts_per_layer=[2, 1])
    check("num_shared_experts_per_layer" in importing(emo_folder, 65), "another number of shared experts in a layer")
    config["model_type"] = "llama"
    (folder / "config.json").write_text(json.dumps(config))
    check("'llama'" in importing(folder, 65), "another architecture")
    (folder / "config.json").unlink()
    check("config.json" in importing(folder, 66), "no config")
    check(not list(emo.folder.glob("never*")), "something was left behind")
    error = emo.run("eval", good, "--data", emo.folder, expect=65).stderr
    check("emo import" in error, error)


@functools.cache
def trained_from_import(emo):
    """An imported model trains once a contract is stated, and its own sizes are insisted on."""
    _, imported = olmoe(emo, "5.23")
    sizes = ["model.vocab_size=97", "model.d_model=48", "model.n_layers=3", "model.n_heads=4", "model.d_expert=20",
             "model.num_experts=9", "model.num_shared_experts=0", "model.top_k=3", "model.qk_norm=true",
             "model.rope_theta=10000", "model.norm_epsilon=1e-5", "routing.pool={min: 3, max: 9, eval: none}",
             "data.synthetic.vocab_size=97", "train.steps=2", "--quiet"]

    def train(name, *more, expect=0):
        return emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder / name}", f"run.start_from={imported}",
                       *sizes, *more, expect=expect).stderr
    check("not stated" in train("unstated", expect=64), "the contract must be stated")
    train("stated", "run.change_contract=true")
    check("rope_theta" in train("theta", "run.change_contract=true", "model.rope_theta=500000", expect=64), "rope_theta")
    trained = emo.folder / "stated/step-0000002"
    check(json.loads((trained / "config.json").read_text())["qk_norm"] is True, "the checkpoint lost its QK-norm")
    return trained


def test_training_from_import(emo):
    path, text = expected(emo, trained_from_import(emo), 97)
    side(emo, "5.23").ask("compare", trained_from_import(emo), path)
    found = side(emo, "5.23").ask("generate", trained_from_import(emo), path)
    check(found == text, f"greedy {found}, expected {text}")


def write_sparse_model(folder, experts):
    """An OLMoE folder of zeros with many experts, which takes no room on the disk."""
    D, F, V, L = 512, 1024, 1000, 2
    shapes = {"model.embed_tokens.weight": [V, D], "model.norm.weight": [D], "lm_head.weight": [V, D]}
    for layer in range(L):
        prefix = f"model.layers.{layer}."
        for name in "qkvo":
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = [D, D]
        for name in ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"):
            shapes[f"{prefix}{name}.weight"] = [D]
        shapes[f"{prefix}mlp.gate.weight"] = [experts, D]
        for expert in range(experts):
            for name, shape in (("gate", [F, D]), ("up", [F, D]), ("down", [D, F])):
                shapes[f"{prefix}mlp.experts.{expert}.{name}_proj.weight"] = shape
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(numpy.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    folder.mkdir()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    (folder / "config.json").write_text(json.dumps(dict(
        model_type="olmoe", vocab_size=V, hidden_size=D, intermediate_size=F, num_hidden_layers=L,
        num_attention_heads=8, num_experts=experts, num_experts_per_tok=8)))
    return offset


def test_memory(emo):
    """Import and export hold one piece of one tensor at a time, whatever the model's size."""
    large = emo.folder / "large"
    size = write_sparse_model(large, 64)

    def peak(*arguments):
        process = subprocess.Popen([emo.executable, *map(str, arguments)], cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        check(status == 0, f"{arguments}: status {status}")
        return usage.ru_maxrss * 1024
    base = peak("--version")
    used = [peak("import", large, emo.folder / "large-in") - base,
            peak("export", emo.folder / "large-in", emo.folder / "large-out", "--dtype", "bf16") - base]
    check(size > 800e6 and max(used) < 100e6, f"a model of {size} bytes was copied with {used} bytes resident")


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    subprocess.run([str(ROOT / "launch/setup_transformers.sh")], check=True)
    wanted = sys.argv[2] if len(sys.argv) > 2 else ""
    cases = {name: case for name, case in globals().items() if name.startswith("test_") and wanted in name}
    failed = []
    with Program(sys.argv[1]) as emo:
        for name, case in cases.items():
            begin = time.monotonic()
            try:
                case(emo)
            except Exception:
                failed.append(name)
                print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
            else:
                print(f"passed {name} ({time.monotonic() - begin:.1f} s)", flush=True)
    if failed or not cases:
        sys.exit(f"{len(failed)} of {len(cases)} cases failed: {' '.join(failed)}")


if __name__ == "__main__":
    main()
