"""Exchange with Hugging Face: export, import, our Python classes under both lines of transformers, OLMoE folders
in both directions, and what is refused."""
import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys

import numpy
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import ROOT, Program, check, write_tokenizer  # noqa: E402

TOLERANCE = 1e-4


def transformers(line: int, *arguments, folder) -> str:
    """Runs transformers_side.py with one line of transformers; answers what it printed last."""
    environment = dict(os.environ, LD_LIBRARY_PATH=str(ROOT / "build/absent-cuda"), OMP_NUM_THREADS="1",
                       PYTHONPATH=str(ROOT / f"build/transformers-{line}"), HF_HOME=str(folder / f"home-{line}"),
                       HF_HUB_OFFLINE="1")
    command = [sys.executable, str(ROOT / "tests/eval/convert/transformers_side.py"), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300,
                            stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        raise AssertionError(f"transformers {line}: {' '.join(command)}\n{result.stderr[-3000:]}")
    answers = [text for text in result.stdout.splitlines() if text.startswith("{")]
    if arguments[0] in ("compare", "tokenize") and not answers:
        raise AssertionError(f"transformers {line}: {' '.join(command)}: no answer: {result.stdout} {result.stderr}")
    return answers[-1] if answers else ""


def logits(emo, model, ids, ends=None, *options, **more):
    """Ours, for [B, S] tokens."""
    tensors = {"input_ids": numpy.asarray(ids, dtype=numpy.int64)}
    if ends is not None:
        tensors["document_ends"] = numpy.asarray(ends, dtype=numpy.int64)
    given, out = emo.folder / "given.safetensors", emo.folder / "answered.safetensors"
    save_file(tensors, str(given))
    emo.run("logits", model, "--tokens", given, "--output", out, "--overwrite", *options, **more)
    return load_file(str(out))["logits"]


def greedy(emo, model, prompt, count, ends):
    """By computing everything again for every token."""
    tokens = list(map(int, prompt))
    for _ in range(count):
        tokens.append(int(logits(emo, model, [tokens])[0, -1].argmax()))
        if tokens[-1] in ends:
            break
    return tokens[len(prompt):]


def largest(difference) -> float:
    return float(numpy.abs(difference).max())


def test_our_classes(emo, models, lines):
    """Logits, masks, caches and greedy text of folders of model_type emo; models: (folder, tokens that it knows)."""
    draw = numpy.random.default_rng(7)
    ends = [4, 13, 21, 42, 43, 50, 63]
    arguments, prompts = [], []
    for number, (model, vocabulary) in enumerate(models):
        ids = draw.integers(1, vocabulary, (3, 21))
        path = emo.folder / f"compare-{number}.safetensors"
        save_file({"input_ids": ids, "document_ends": numpy.array(ends), "rows": logits(emo, model, ids),
                   "documents": logits(emo, model, ids, ends)}, str(path))
        arguments += [model, path]
        prompts.append(ids[0, :5])
    for line in lines:
        answers = json.loads(transformers(line, "compare", *arguments, folder=emo.folder))["models"]
        for (model, _), prompt, found in zip(models, prompts, answers, strict=True):
            wanted = greedy(emo, model, prompt, len(found["greedy"]), found["ends"])
            check(found["greedy"] == wanted, f"{model}: greedy {found['greedy']}, expected {wanted}")


def test_olmoe(emo, line):
    there, here, back = (emo.folder / f"olmoe-{line}-{name}" for name in ("there", "here", "back"))
    transformers(line, "make-olmoe", there, folder=emo.folder)
    report = emo.json("import", there, here)
    check(report["contract"] == "unstated" and report["num_experts"] == 9, str(report))
    ids = numpy.random.default_rng(3).integers(0, 97, (2, 33))
    given, wanted = emo.folder / "ids.safetensors", emo.folder / "wanted.safetensors"
    save_file({"input_ids": ids}, str(given))
    transformers(line, "logits", there, given, wanted, folder=emo.folder)
    wanted = load_file(str(wanted))["logits"]
    check(largest(wanted) > 0.5, "logits are all but zero")
    check(largest(logits(emo, here, ids) - wanted) < TOLERANCE, "an OLMoE computed here")
    check(largest(logits(emo, here, ids, None, "--ep", 2, ranks=2) - wanted) < TOLERANCE, "on two ranks")
    test_our_classes(emo, [(here, 97)], [line])
    emo.run("export", here, back, "--as", "olmoe")
    again = emo.folder / "again.safetensors"
    transformers(line, "logits", back, given, again, folder=emo.folder)
    check(largest(load_file(str(again))["logits"] - wanted) < TOLERANCE, "and back")
    return there, here


def read_folder(folder) -> dict:
    """name -> (dtype, flat array; bf16 as 16-bit integers), of all safetensors files of a folder."""
    tensors = {}
    for path in sorted(folder.glob("model*.safetensors")):
        content = path.read_bytes()
        start = 8 + struct.unpack("<Q", content[:8])[0]
        for name, entry in json.loads(content[8:start]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                kind = {"F32": numpy.float32, "BF16": numpy.uint16}[entry["dtype"]]
                tensors[name] = entry["dtype"], numpy.frombuffer(content[start + begin:start + end], kind)
    return tensors


def test_export(emo, model, tokenizer_size):
    """Types, shards, vocabulary, files; and that exporting twice gives the same bytes."""
    out = emo.folder / "exported"
    report = emo.json("export", model, out, "--dtype", "bf16", "--max-shard-size", 100_000, "--vocab-size", tokenizer_size)
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
    emo.run("export", model, twin, "--dtype", "bf16", "--max-shard-size", 100_000, "--vocab-size", tokenizer_size)
    for path in out.iterdir():
        check(path.read_bytes() == (twin / path.name).read_bytes(), f"{path.name} differs between equal exports")
    ids = numpy.random.default_rng(5).integers(1, tokenizer_size, (2, 30))
    full, cut = logits(emo, model, ids), logits(emo, out, ids)
    check(cut.shape[-1] == tokenizer_size and report["vocab_size"] == tokenizer_size, f"{cut.shape}")
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
    return out


def test_shared_experts(emo):
    two = emo.folder / "two"
    emo.run("import", "tests/golden/made_two_shared", two)
    error = emo.run("export", two, emo.folder / "two-out", expect=64).stderr
    check("2 shared experts" in error and "--force" in error, error)
    emo.run("export", two, emo.folder / "two-out", "--force")
    return emo.folder / "two-out"


def rewrite(folder, change):
    """Changes the tensors of a folder with one file."""
    tensors = load_file(str(folder / "model.safetensors"))
    change(tensors)
    save_file(tensors, str(folder / "model.safetensors"), {"format": "pt"})


def test_refusals(emo, good):
    """Everything wrong is in one error."""
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
    config["model_type"] = "llama"
    (folder / "config.json").write_text(json.dumps(config))
    check("'llama'" in importing(folder, 65), "another architecture")
    (folder / "config.json").unlink()
    check("config.json" in importing(folder, 66), "no config")
    check(not list(emo.folder.glob("never*")), "something was left behind")
    error = emo.run("eval", good, "--data", emo.folder, expect=65).stderr
    check("emo import" in error, error)


def test_training_from_import(emo, olmoe):
    """An imported model trains once a contract is stated, and its own sizes are insisted on."""
    sizes = ["model.vocab_size=97", "model.d_model=48", "model.n_layers=3", "model.n_heads=4", "model.d_expert=20",
             "model.num_experts=9", "model.num_shared_experts=0", "model.top_k=3", "model.qk_norm=true",
             "model.rope_theta=10000", "model.norm_epsilon=1e-5", "routing.pool={min: 3, max: 9, eval: none}",
             "data.synthetic.vocab_size=97", "train.steps=2", "--quiet"]

    def train(name, *more, expect=0):
        return emo.run("train", "configs/tiny.yaml", f"run.folder={emo.folder / name}", f"run.start_from={olmoe}",
                       *sizes, *more, expect=expect).stderr
    check("not stated" in train("unstated", expect=64), "the contract must be stated")
    train("stated", "run.change_contract=true")
    check("rope_theta" in train("theta", "run.change_contract=true", "model.rope_theta=500000", expect=64), "rope_theta")
    trained = emo.folder / "stated/step-0000002"
    check(json.loads((trained / "config.json").read_text())["qk_norm"] is True, "the checkpoint lost its QK-norm")
    return trained


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
    with Program(sys.argv[1]) as emo:
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
        model = folder / "emo/step-0000003"
        exported = test_export(emo, model, vocabulary)
        two_shared = test_shared_experts(emo)
        imported = folder / "imported"
        emo.run("import", exported, imported)
        check(json.loads((imported / "config.json").read_text())["emo_routing"] ==
              json.loads((model / "config.json").read_text())["emo_routing"], "the contract survives both ways")
        test_our_classes(emo, [(model, vocabulary), (two_shared, 60), (folder / "dense/step-0000003", vocabulary),
                               (folder / "mixed/step-0000003", vocabulary)], (4, 5))
        for line in (4, 5):
            transformers(line, "cut", model, folder / f"cut-{line}", folder=folder)
            text = "a cat, and two hats"
            found = json.loads(transformers(line, "tokenize", exported, text, folder=folder))
            wanted = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
            fields = ["attention_mask", "input_ids"]
            check(found == {"ids": wanted, "eos": "<|endoftext|>", "fields": fields}, f"{found}, expected {wanted}")
            there, olmoe = test_olmoe(emo, line)
        test_refusals(emo, there)
        test_our_classes(emo, [(test_training_from_import(emo, olmoe), 97)], [5])
        test_memory(emo)
    print("exchange: all checks hold")


if __name__ == "__main__":
    main()
