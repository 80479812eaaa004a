"""Writes a checkpoint of ours in OLMo-core's layout, on two processes, each holding half of every tensor:
FROM TO RANK PORT. What launch/import_olmo_core.py must turn back."""
import json
import os
import pathlib
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

source, target, rank, port = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4]
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=rank, WORLD_SIZE="2", GLOO_SOCKET_IFNAME="lo")
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
config = json.loads((source / "config.json").read_text())
step = json.loads((source / "state.json").read_text())["step"]
ours = {}
for path in sorted(source.glob("*.safetensors")):
    ours |= load_file(str(path))


def theirs(prefix):
    """OLMo-core's names and layouts (emo-facts 7.2), from ours with a prefix."""
    def get(name):
        return ours[prefix + name]
    names = {"embeddings.weight": get("model.embed_tokens.weight"), "lm_head.norm.weight": get("model.norm.weight"),
             "lm_head.w_out.weight": get("lm_head.weight")}
    dense = config.get("dense_layers", [])
    for i in range(config["num_hidden_layers"]):
        a, b = f"model.layers.{i}.", f"blocks.{i}."
        for x, y in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "out")):
            names[f"{b}attention.w_{y}.weight"] = get(f"{a}self_attn.{x}_proj.weight")
        names[b + "attention_norm.weight"] = get(a + "pre_attention_layernorm.weight")
        names[b + "feed_forward_norm.weight"] = get(a + "pre_feedforward_layernorm.weight")
        for x, y in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
            if i in dense:
                names[f"{b}feed_forward.{y}.weight"] = get(f"{a}mlp.{x}_proj.weight")
                continue
            experts = [get(f"{a}mlp.experts.{e}.{x}_proj.weight") for e in range(config["num_experts"])]
            names[f"{b}feed_forward_moe.experts.mlp.{y}"] = torch.cat([t.t() if y == "w2" else t for t in experts])
        if i not in dense:
            names[b + "feed_forward_moe.router.weight"] = get(a + "mlp.gate.weight").flatten()
    return names


def shard(tensor):
    return distribute_tensor(tensor.contiguous(), mesh, [Shard(0)])


moments = {name: theirs(name + "/") for name in ("exp_avg", "exp_avg_sq")}
state = {"model": {name: shard(tensor) for name, tensor in theirs("").items()}, "optim": {}}
for name in state["model"]:
    for moment in moments:
        state["optim"][f"state.{name}.{moment}"] = shard(moments[moment][name])
    state["optim"][f"state.{name}.step"] = torch.tensor(float(step))
    state["optim"][f"param_groups.{name}.lr"] = 0.1
dcp.save(state, checkpoint_id=target / "model_and_optim")
if rank == "0":
    (target / "config.json").write_text(json.dumps({
        "model": {"d_model": config["hidden_size"], "block": {
            "attention": {"n_heads": config["num_attention_heads"], "rope": {"theta": int(config["rope_theta"])}},
            "layer_norm": {"eps": config["rms_norm_eps"]},
            "feed_forward_moe": {"router": {"top_k": config["num_experts_per_tok"], "eos_token_id": config["eos_token_id"],
                                            "num_shared_experts": config["num_shared_experts"]}}}},
        "dataset": {"sequence_length": config["max_position_embeddings"],
                    "tokenizer": {"eos_token_id": config["eos_token_id"]}},
        "data_loader": {"global_batch_size": int(sys.argv[5])}}))
    (target / "train").mkdir()
    torch.save({"global_step": step, "rng": torch.zeros(16, dtype=torch.uint8), "data_loader": {
        "dataset_fingerprint_version": "v2.0", "dataset_fingerprint": "0" * 64, "batches_processed": step,
        "tokens_processed": step * int(sys.argv[5]), "seed": 3, "epoch": 1, "dataset_type": "fsl",
        "sequence_length": config["max_position_embeddings"]}}, target / "train/rank0.pt")
dist.barrier()
# Everything is written. Gloo's threads sometimes outlive the interpreter's end, which aborts the process.
sys.stdout.flush()
os._exit(0)
