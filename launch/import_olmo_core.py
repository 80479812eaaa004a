"""An OLMo-core checkpoint, as allenai/EMO's training code writes it, as a checkpoint of ours: weights, and with
them the optimizer's moments, so that an anneal can go on from it.

Reads STEP_FOLDER/model_and_optim (torch.distributed.checkpoint: .distcp shards and .metadata) and, for what tensors
do not say, STEP_FOLDER/config.json; options win over it. Holds one layer in memory at a time. Needs torch and
safetensors (launch/setup_transformers.sh tells how to run Python with them). The routing contract becomes
`unstated`: a run that starts from here says in its own config which one it trains with.

Example:
  python launch/import_olmo_core.py checkpoints/emo_1t/step238419 runs/emo-1t/step-0238419
  build/release/emo train anneal.yaml run.start_from=runs/emo-1t/step-0238419 run.take=all run.change_contract=true
"""
import dataclasses
import hashlib
import io
import json
import pathlib
import pickle
import re
import shutil
import sys
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from launch.arguments import Arguments  # noqa: E402

if typing.TYPE_CHECKING:  # torch takes seconds to import, and --help does without
    import torch

LAYER_NAMES = {  # after model.layers.i. -> after blocks.i.
    "self_attn.q_proj.weight": "attention.w_q.weight",
    "self_attn.k_proj.weight": "attention.w_k.weight",
    "self_attn.v_proj.weight": "attention.w_v.weight",
    "self_attn.o_proj.weight": "attention.w_out.weight",
    "pre_attention_layernorm.weight": "attention_norm.weight",
    "pre_feedforward_layernorm.weight": "feed_forward_norm.weight",
}
OUTER_NAMES = {"model.embed_tokens.weight": "embeddings.weight", "model.norm.weight": "lm_head.norm.weight",
               "lm_head.weight": "lm_head.w_out.weight"}
MOMENTS = ("exp_avg", "exp_avg_sq")


def fail(*lines):
    sys.exit("import_olmo_core: " + "\n  ".join(lines))


@dataclasses.dataclass
class StorageInfo:
    """Where a piece of a tensor is; torch and OLMo-core each pickle a class of their own with these fields."""
    relative_path: str = ""
    offset: int = 0
    length: int = 0


class MetadataUnpickler(pickle.Unpickler):
    """.metadata holds a few plain classes of torch; nothing else is let in."""

    PLAIN = "torch.distributed.checkpoint.metadata"

    def member(self, owner, name):
        """getattr, as values of an enum are pickled; of the metadata's own classes only."""
        if getattr(owner, "__module__", None) != self.PLAIN or name.startswith("__"):
            raise pickle.UnpicklingError(f".metadata refers to {owner}.{name}")
        return getattr(owner, name)

    def find_class(self, module, name):
        import torch
        if name == "_StorageInfo":
            return StorageInfo
        if (module, name) == ("builtins", "getattr"):
            return self.member
        if module == "torch" and isinstance(getattr(torch, name, None), (torch.dtype, torch.layout)):
            return getattr(torch, name)
        if module == self.PLAIN or (module, name) in {("torch", "Size"), ("torch.serialization", "_get_layout"),
                                                      ("collections", "OrderedDict"), ("pathlib", "PosixPath")}:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f".metadata refers to {module}.{name}")


class Tensors:
    """The tensors of a torch.distributed.checkpoint folder, by name, one at a time."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        path = folder / ".metadata"
        if not path.exists():
            fail(f"{path} is missing: not an OLMo-core step folder")
        with open(path, "rb") as file:
            metadata = MetadataUnpickler(file).load()
        self.entries = {name: entry for name, entry in metadata.state_dict_metadata.items() if hasattr(entry, "chunks")}
        self.pieces = {}
        for index, where in metadata.storage_data.items():
            self.pieces[index.fqn, tuple(index.offset or ())] = where

    def number(self, name) -> float | None:
        """What is stored under a name, tensor or not; None where there is nothing."""
        import torch
        if name in self.entries:
            return float(self.read(name))
        where = self.pieces.get((name, ()))
        if where is None:
            return None
        with open(self.folder / pathlib.Path(where.relative_path).name, "rb") as file:
            file.seek(where.offset)
            return float(torch.load(io.BytesIO(file.read(where.length)), weights_only=True))

    def shape(self, name):
        return tuple(self.entries[name].size) if name in self.entries else None

    def read(self, name) -> "torch.Tensor":
        import torch
        entry = self.entries[name]
        whole = torch.empty(entry.size, dtype=entry.properties.dtype)
        for chunk in entry.chunks:
            where = self.pieces[name, tuple(chunk.offsets)]
            with open(self.folder / pathlib.Path(where.relative_path).name, "rb") as file:
                file.seek(where.offset)
                piece = torch.load(io.BytesIO(file.read(where.length)), map_location="cpu", weights_only=True)
            place = tuple(slice(o, o + s) for o, s in zip(chunk.offsets, chunk.sizes))
            whole[place] = piece.detach().view(tuple(chunk.sizes))
        return whole.float()


def first_value(config, name):
    """The first value of a key anywhere in the experiment's config, model first, or None."""
    if isinstance(config, dict):
        if config.get(name) is not None and not isinstance(config[name], dict):
            return config[name]
        for key in sorted(config, key=lambda key: key != "model"):
            found = first_value(config[key], name)
            if found is not None:
                return found
    return None


def sizes_of(tensors, options):
    """What shapes say, completed by config.json and the options."""
    path = options.step_folder / "config.json"
    experiment = json.loads(path.read_text()) if path.exists() else {}
    D = tensors.shape("model.embeddings.weight")[1]
    layers = 1 + max(int(m[1]) for m in (re.match(r"model\.blocks\.(\d+)\.", n) for n in tensors.entries) if m)
    dense = [i for i in range(layers) if f"model.blocks.{i}.feed_forward.w1.weight" in tensors.entries]
    moe = [i for i in range(layers) if i not in dense]
    size = {"vocab_size": tensors.shape("model.embeddings.weight")[0], "d_model": D, "layers": layers, "dense": dense,
            "d_ffn": tensors.shape(f"model.blocks.{dense[0]}.feed_forward.w1.weight")[0] if dense else 0}
    wanted = {"heads": "n_heads", "eos": "eos_token_id", "sequence_length": "sequence_length"}
    if moe:
        router = tensors.shape(f"model.blocks.{moe[0]}.feed_forward_moe.router.weight")
        size["experts"] = router[0] if len(router) == 2 else router[0] // D
        size["d_expert"] = tensors.shape(f"model.blocks.{moe[0]}.feed_forward_moe.experts.mlp.w1")[0] // size["experts"]
        wanted |= {"top_k": "top_k", "shared": "num_shared_experts"}
    missing = []
    for option, key in wanted.items():
        size[option] = getattr(options, option)
        if size[option] is None:
            size[option] = first_value(experiment, key)
        if size[option] is None:
            missing.append(f"--{option.replace('_', '-')}: {path} does not say {key}")
    if missing:
        fail("sizes that are not known:", *missing)
    size["theta"] = options.rope_theta or first_value(experiment.get("model"), "theta") or 500000
    size["epsilon"] = options.norm_epsilon or first_value(experiment.get("model"), "eps") or 1e-6
    batch = first_value(experiment.get("data_loader"), "global_batch_size")
    size["tokens_per_step"] = options.tokens_per_step or batch
    return size


def loader_state(step_folder: pathlib.Path) -> dict:
    """Where the run was in its data, as its first rank wrote it; {} where that cannot be read."""
    import torch
    path = step_folder / "train/rank0.pt"
    if not path.exists():
        return {}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is none makes of torch
        print(f"import_olmo_core: {path} cannot be read, so its place in the data is not compared: {error}", file=sys.stderr)
        return {}
    found = state.get("data_loader") if isinstance(state, dict) else None
    return found if isinstance(found, dict) else {}


def check_position(state: dict, tokens: int, size: dict) -> None:
    """The place in the data that follows from the step is the one that the run wrote down."""
    processed, first_epoch = state.get("tokens_processed"), state.get("epoch") in (None, 1)
    if processed is not None and first_epoch and size["tokens_per_step"] and processed != tokens:
        fail(f"its loader has given {processed} tokens, and its steps make {tokens}: --tokens-per-step says how many a step is")
    length = state.get("sequence_length")
    if length is not None and length != size["sequence_length"]:
        fail(f"its loader gave rows of {length} tokens, and sequence_length is {size['sequence_length']}: --sequence-length")


def layer_sources(size, layer):
    """Our name -> (their name, which part of it) for one layer."""
    D, ours, theirs = size["d_model"], f"model.layers.{layer}.", f"blocks.{layer}."
    sources = {ours + a: (theirs + b, None) for a, b in LAYER_NAMES.items()}
    if layer in size["dense"]:
        for a, b in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
            sources[f"{ours}mlp.{a}_proj.weight"] = (f"{theirs}feed_forward.{b}.weight", None)
        return sources
    F, E = size["d_expert"], size["experts"]
    sources[ours + "mlp.gate.weight"] = (theirs + "feed_forward_moe.router.weight", lambda t: t.view(E, D))
    for expert in range(E):
        for a, b in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
            def part(t, expert=expert, a=a):
                rows = t.view(E, F, D)[expert]
                return rows.t() if a == "down" else rows
            sources[f"{ours}mlp.experts.{expert}.{a}_proj.weight"] = (f"{theirs}feed_forward_moe.experts.mlp.{b}", part)
    return sources


def check_complete(tensors, groups, prefixes):
    """Everything that is missing, and every parameter of theirs that we have no place for, in one error."""
    wrong = []
    for prefix, suffix in prefixes:
        expected = {f"{prefix}{name}{suffix}" for group in groups for name, _ in group.values()}
        wrong += [f"{name} is missing" for name in sorted(expected) if name not in tensors.entries]
        wrong += [f"{name} has no place in an EMO model" for name in sorted(tensors.entries)
                  if name.startswith(prefix) and name.endswith(suffix) and name not in expected]
    if wrong:
        fail(f"{tensors.folder}: tensors do not fit", *wrong[:12], *([f"and {len(wrong) - 12} more"] if wrong[12:] else []))


def write_tensors(tensors, groups, out, stem, prefixes):
    """One file for each group, and the index. prefixes: (ours, theirs before the name, theirs after it)."""
    import torch
    from safetensors.torch import save_file
    index, total = {}, 0
    for number, group in enumerate(groups, 1):
        name = f"{stem}-{number:05d}-of-{len(groups):05d}.safetensors"
        part, whole = {}, {}
        for ours, before, after in prefixes:
            whole.clear()
            for target, (source, cut) in group.items():
                if source not in whole:
                    whole[source] = tensors.read(before + source + after)
                value = whole[source] if cut is None else cut(whole[source])
                part[ours + target] = value.clone(memory_format=torch.contiguous_format)
        save_file(part, str(out / name), {"format": "pt"})
        index |= dict.fromkeys(part, name)
        total += sum(value.numel() * 4 for value in part.values())
    (out / f"{stem}.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1) + "\n")


def config_json(size):
    layers, dense = size["layers"], size["dense"]
    config = {
        "model_type": "emo", "architectures": ["EmoForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_emo.EmoConfig", "AutoModel": "modeling_emo.EmoModel",
                     "AutoModelForCausalLM": "modeling_emo.EmoForCausalLM"},
        "vocab_size": size["vocab_size"], "hidden_size": size["d_model"], "intermediate_size": size.get("d_expert", 0),
        "num_hidden_layers": layers, "num_attention_heads": size["heads"], "num_key_value_heads": size["heads"],
        "hidden_act": "silu", "max_position_embeddings": size["sequence_length"], "rms_norm_eps": size["epsilon"],
        "rope_theta": size["theta"], "rope_scaling": None, "attention_bias": False, "tie_word_embeddings": False,
        "num_experts": size.get("experts", 0), "num_experts_per_tok": size.get("top_k", 0),
        "num_shared_experts": size.get("shared", 0), "norm_topk_prob": False, "bos_token_id": None,
        "eos_token_id": size["eos"], "torch_dtype": "float32", "emo_routing": "unstated"}
    if dense:
        config |= {"dense_layers": dense, "dense_intermediate_size": size["d_ffn"],
                   "num_experts_per_layer": [0 if i in dense else size["experts"] for i in range(layers)]}
    return config


def write_manifest(out):
    files = []
    for path in sorted(out.iterdir()):
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
        files.append({"name": path.name, "size": path.stat().st_size, "sha256": digest.hexdigest()})
    (out / "MANIFEST").write_text(json.dumps({"format": "emo-checkpoint-1", "files": files}, indent=1) + "\n")


def main():
    parser = Arguments(__doc__)
    parser.add_argument("step_folder", type=pathlib.Path, help="folder with model_and_optim/ and config.json")
    parser.add_argument("out", type=pathlib.Path, help="checkpoint folder to make")
    parser.add_argument("--weights-only", action="store_true", help="leave the optimizer's moments out")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="tokenizer.json to put beside the weights")
    for name, kind in (("heads", int), ("top-k", int), ("shared", int), ("eos", int), ("sequence-length", int),
                       ("step", int), ("tokens-per-step", int), ("rope-theta", float), ("norm-epsilon", float)):
        parser.add_argument("--" + name, type=kind, help="instead of what the checkpoint says")
    options = parser.parse_args()
    if options.out.exists():
        fail(f"{options.out} stands already")
    tensors = Tensors(options.step_folder / "model_and_optim")
    size = sizes_of(tensors, options)
    groups = [{ours: (theirs, None) for ours, theirs in OUTER_NAMES.items()}]
    groups += [layer_sources(size, layer) for layer in range(size["layers"])]
    model, moments = [("", "model.", "")], [(f"{m}/", "optim.state.", f".{m}") for m in MOMENTS]
    check_complete(tensors, groups, [(before, after) for _, before, after in model + (
        [] if options.weights_only else moments)])

    step = options.step
    if step is None:
        found = re.search(r"step(\d+)$", options.step_folder.resolve().name)
        step = int(found[1]) if found else fail("--step: the folder's name does not say it")
    steps_taken = "optim.state.embeddings.weight.step"
    if not options.weights_only and steps_taken in tensors.entries and int(tensors.read(steps_taken)) != step:
        fail(f"the optimizer has taken {int(tensors.read(steps_taken))} steps, the checkpoint is of step {step}")
    tokens = step * (size["tokens_per_step"] or 0)
    state = {} if options.weights_only else loader_state(options.step_folder)
    check_position(state, tokens, size)
    rate = None if options.weights_only else tensors.number("optim.param_groups.embeddings.weight.lr")

    temporary = options.out.with_name(options.out.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_tensors(tensors, groups, temporary, "model", model)
    if not options.weights_only:
        write_tensors(tensors, groups, temporary, "optimizer", moments)
    (temporary / "config.json").write_text(json.dumps(config_json(size), indent=1) + "\n")
    (temporary / "state.json").write_text(json.dumps(
        {"step": step, "sequences": tokens // size["sequence_length"], "tokens": tokens, "data_fingerprint": "",
         **({} if rate is None else {"learning_rate": rate}),
         **({"reference_loader": {"seed": state["seed"]}} if "seed" in state else {}), "config": {}, "imported_from": str(options.step_folder)},
        indent=1) + "\n")
    for source in sorted((ROOT / "train/model_folder/hugging_face").glob("*_emo.py")):
        shutil.copy(source, temporary)
    if options.tokenizer:
        shutil.copy(options.tokenizer, temporary / "tokenizer.json")
    write_manifest(temporary)
    temporary.rename(options.out)
    print(f"{options.out}: step {step}, {len(groups) - 1} layers" +
          (", weights only" if options.weights_only else ", with the optimizer's moments") +
          ("" if size["tokens_per_step"] else "; tokens and data position unknown (--tokens-per-step), set to 0") +
          (f"; its data has seed {state['seed']} (data.seed)" if "seed" in state else "") +
          (f"; its place in epoch {state['epoch']} of the data follows from its step, and was not compared"
           if state.get("epoch") not in (None, 1) else ""))


if __name__ == "__main__":
    main()
