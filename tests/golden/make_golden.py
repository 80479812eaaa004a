"""Makes a golden folder for `emo check` with plain torch autograd in fp64: loops over documents and
experts, nothing shared with the program. tests/golden/made_* come from it:

  make_golden.py tests/golden/made_two_shared --seed 2
  make_golden.py tests/golden/made_standard --layers 1 --experts 9 --shared 0 --topk 2 --std --seed 5

Needs torch and safetensors (launch/setup_full.sh, build/python-full). Formulas: docs/concepts.md;
files and rules: tests/golden/README.md.
"""
import argparse
import json
import pathlib
import random

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

BALANCE, ROUTER_Z, LM_Z = 0.1, 1e-3, 1e-5
ROPE_THETA, NORM_EPS = 500000.0, 1e-6


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=pathlib.Path)
    for name, value in dict(d=32, layers=3, heads=4, hidden=12, experts=11, topk=5, shared=2, vocab=96,
                            seq=40, batch=5, pool=5, seed=1, steps=4).items():
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--std", action="store_true", help="a standard MoE: no pools")
    p.add_argument("--eos-routes-with", choices=["previous", "next"], default="previous")
    c = vars(p.parse_args())
    return c.pop("folder"), dict(c, eos_id=0)


def make_weights(c):
    generator = torch.Generator().manual_seed(c["seed"])

    def wide(*shape, std=0.1):
        return std * torch.randn(shape, generator=generator)

    def norm():
        return 1 + 0.1 * torch.randn(c["d"], generator=generator)

    d = c["d"]
    w = {"model.embed_tokens.weight": wide(c["vocab"], d)}
    for i in range(c["layers"]):
        layer = f"model.layers.{i}."
        for name in "qkvo":
            w[f"{layer}self_attn.{name}_proj.weight"] = wide(d, d)
        w[layer + "pre_attention_layernorm.weight"] = norm()
        w[layer + "pre_feedforward_layernorm.weight"] = norm()
        w[layer + "mlp.gate.weight"] = wide(c["experts"], d, std=0.4)  # shared rows are stored, never used
        for e in range(c["experts"]):
            expert = f"{layer}mlp.experts.{e}."
            w[expert + "gate_proj.weight"] = wide(c["hidden"], d)
            w[expert + "up_proj.weight"] = wide(c["hidden"], d)
            w[expert + "down_proj.weight"] = wide(d, c["hidden"])
    w["model.norm.weight"] = norm()
    w["lm_head.weight"] = wide(c["vocab"], d)
    return {name: t.float().double().requires_grad_() for name, t in w.items()}


def make_batch(c, rng):
    """Rows [B][S] of documents that end in EOS, and each row's document lengths."""
    rows, lengths = [], []
    for _ in range(c["batch"]):
        cuts = sorted(rng.sample(range(1, c["seq"]), rng.randrange(1, 5)))
        ends = [*cuts, c["seq"]]
        row = [rng.randrange(1, c["vocab"]) for _ in range(c["seq"])]
        for end in cuts:
            row[end - 1] = c["eos_id"]
        rows.append(row)
        lengths.append([end - begin for begin, end in zip([0, *cuts], ends)])
    return torch.tensor(rows), lengths


def routing_spans(c, tokens, lengths):
    """[(begin, end)] over the flattened rows."""
    spans = []
    for row, row_lengths in enumerate(lengths):
        first = row * c["seq"]
        if c["eos_routes_with"] == "previous":
            cuts, at = [], 0
            for length in row_lengths[:-1]:
                cuts.append(at := at + length)
        else:
            cuts = [p for p in range(1, c["seq"]) if tokens[row, p] == c["eos_id"]]
        bounds = [0, *cuts, c["seq"]]
        spans += [(first + a, first + b) for a, b in zip(bounds, bounds[1:])]
    return spans


def rms_norm(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + NORM_EPS) * weight


def rope(x):  # [S, H, head_dim]
    S, _, size = x.shape
    frequency = ROPE_THETA ** (-torch.arange(0, size, 2, dtype=torch.double) / size)
    angle = torch.arange(S, dtype=torch.double)[:, None] * frequency
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attention(c, w, layer, x, lengths):  # [B, S, d]
    heads, out = c["heads"], []
    for row, row_lengths in zip(x, lengths):
        q, k, v = ((row @ w[f"{layer}self_attn.{n}_proj.weight"].T).view(len(row), heads, -1) for n in "qkv")
        q, k = rope(q), rope(k)
        document = torch.repeat_interleave(torch.arange(len(row_lengths)), torch.tensor(row_lengths))
        at = torch.arange(len(row))
        allowed = (document[:, None] == document) & (at[:, None] >= at)
        scores = torch.einsum("qhc,khc->hqk", q, k) / q.shape[-1] ** 0.5
        p = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        out.append(torch.einsum("hqk,khc->qhc", p, v).flatten(1) @ w[f"{layer}self_attn.o_proj.weight"].T)
    return torch.stack(out)


def moe(c, w, layer, x, spans, labelled, state):  # [T, d]; adds losses and metrics to state
    routed, k = c["experts"] - c["shared"], c["topk"] - c["shared"]
    logits = x @ w[layer + "mlp.gate.weight"][:routed].T
    full = logits.softmax(-1)
    mask = torch.ones_like(logits, dtype=torch.bool)
    document_entropy = []
    if not c["std"]:
        for begin, end in spans:
            q = full[begin:end].detach().sum(0)
            order = q.argsort(descending=True, stable=True)
            mask[begin:end] = False
            mask[begin:end, order[:c["pool"]]] = True
            if c["pool"] < routed:
                state["gap"] = min(state["gap"], float(q[order[c["pool"] - 1]] - q[order[c["pool"]]]))
            document_entropy.append(((-full[begin:end] * (full[begin:end] + 1e-10).log()).sum(-1).mean().item()))
    masked = logits.masked_fill(~mask, -torch.inf)
    scores = masked.softmax(-1)
    ordered = scores.detach().sort(-1, descending=True).values
    if k < routed:
        state["gap"] = min(state["gap"], float((ordered[:, k - 1] - ordered[:, k]).min()))
    chosen = scores.detach().topk(k, -1).indices
    weight = scores.gather(-1, chosen)

    y = torch.zeros_like(x)
    for e in range(c["experts"]):
        gate, up, down = (w[f"{layer}mlp.experts.{e}.{n}_proj.weight"] for n in ("gate", "up", "down"))
        if e < routed:
            token, slot = (chosen == e).nonzero(as_tuple=True)
            share = weight[token, slot, None]
        else:
            token, share = torch.arange(len(x)), 1
        h = (F.silu(x[token] @ gate.T) * (x[token] @ up.T)) @ down.T
        y = y.index_add(0, token, h * share)

    divisor, layers = state["divisor"], c["layers"]
    counts = torch.bincount(chosen.flatten(), minlength=routed).double()
    balance = routed / k * (counts / divisor * scores.mean(0)).sum()
    z = masked.logsumexp(-1).pow(2).sum() / divisor
    state["router_loss"] = state["router_loss"] + (BALANCE * balance + ROUTER_Z * z) / layers

    # The reference's standard MoE takes these statistics over labelled tokens only.
    counted = labelled if c["std"] else torch.ones_like(labelled)
    seen = torch.bincount(chosen[counted].flatten(), minlength=routed).double()
    used = float((seen > 0).sum()) + c["shared"]
    block = {
        "load imbalance": float(seen.max() / seen.mean()),
        "load balancing loss": balance.item() * BALANCE / layers,
        "load balancing loss unscaled": balance.item(),
        "router Z loss": z.item() * ROUTER_Z / layers,
        "router Z loss unscaled": z.item(),
        "unique experts used per batch": used,
        "reducedp unique experts used per batch": used,
        "fraction of experts used per batch": used / c["experts"],
        "router token-level expert entropy":
            (-scores * (scores + 1e-10).log()).sum(-1)[counted].mean().item(),
    }
    if document_entropy:
        block["router document-level expert entropy"] = sum(document_entropy) / len(document_entropy)
    state["blocks"].append(block)
    return y


def forward(c, w, tokens, lengths):
    """Logits [B, S, V], cross-entropy, LM z-loss, and what the MoE layers added to the state."""
    labels = torch.full_like(tokens, -100)
    labels[:, :-1] = tokens[:, 1:]
    labelled = (labels != -100).flatten()
    state = {"divisor": int(labelled.sum()), "router_loss": 0.0, "blocks": [], "gap": 1.0}
    spans = routing_spans(c, tokens, lengths)
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(c["layers"]):
        layer = f"model.layers.{i}."
        x = x + attention(c, w, layer, rms_norm(x, w[layer + "pre_attention_layernorm.weight"]), lengths)
        h = rms_norm(x, w[layer + "pre_feedforward_layernorm.weight"]).flatten(0, 1)
        x = x + moe(c, w, layer, h, spans, labelled, state).view_as(x)
    logits = rms_norm(x, w["model.norm.weight"]) @ w["lm_head.weight"].T
    flat = logits.flatten(0, 1)[labelled]
    ce = F.cross_entropy(flat, labels.flatten()[labelled], reduction="sum") / state["divisor"]
    z = LM_Z * flat.logsumexp(-1).pow(2).sum() / state["divisor"]
    return logits, ce, z, state


def metrics(blocks):
    result = {f"block {i:02}/{name}": v for i, block in enumerate(blocks) for name, v in block.items()}
    for name in blocks[0]:
        values = [block[name] for block in blocks]
        result[name] = max(values) if name == "load imbalance" else sum(values)
    return result


def main():
    folder, c = arguments()
    folder.mkdir(parents=True)
    rng = random.Random(c["seed"])
    w = make_weights(c)

    def save(name, tensors):
        save_file({n: t.detach().float().contiguous() if t.is_floating_point() else t
                   for n, t in tensors.items()}, folder / f"{name}.safetensors")

    save("model", w)
    tokens, lengths = make_batch(c, rng)
    logits, ce, z, state = forward(c, w, tokens, lengths)
    (ce + z + state["router_loss"]).backward()
    save("forward", {"input_ids": tokens, "logits": logits})
    save("grads", {n: t.grad if t.grad is not None else torch.zeros_like(t) for n, t in w.items()})
    golden = {"config": c, "loss_total": (ce + z).item(), "ce_loss": ce.item(), "lm_z_loss": z.item(),
              "tokens_in_loss": float(state["divisor"]), "aux": metrics(state["blocks"]),
              "document_lengths": lengths, "trajectory": []}
    gap = state["gap"]

    embedding = w["model.embed_tokens.weight"]
    rest = [t for n, t in w.items() if t is not embedding]
    optimizer = torch.optim.AdamW([{"params": [embedding], "weight_decay": 0.0},
                                   {"params": rest, "weight_decay": 0.1}], betas=(0.9, 0.95), eps=1e-8)
    inputs = {}
    for step in range(c["steps"]):
        tokens, lengths = make_batch(c, rng)
        inputs[f"step{step}.input_ids"] = tokens
        for t in w.values():
            t.grad = torch.zeros_like(t)  # an expert without tokens still decays
        _, ce, z, state = forward(c, w, tokens, lengths)
        (ce + z + state["router_loss"]).backward()
        norm = torch.stack([t.grad.norm() for t in w.values()]).norm()
        for t in w.values():
            t.grad *= min(1.0, 1.0 / (float(norm) + 1e-6))
        rate = 1e-3 * (step + 1)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        gap = min(gap, state["gap"])
        golden["trajectory"].append({"step": step, "lr": rate, "loss_total": (ce + z).item(), "ce_loss": ce.item(),
                                     "grad_norm": float(norm), "document_lengths": lengths})
    save("trajectory_inputs", inputs)
    save("model_after", w)
    (folder / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
    print(f"{folder}: the closest routing choice is {gap:.1e} apart; below 1e-5 take another --seed")


main()
