"""Training steps of a mixture of experts over torch.distributed (Gloo), as it is usually written.

The layers of configs/bench-107m.yaml: RMSNorm, attention inside documents of 256 tokens with rotary
positions, a router with a pool of experts for each document, 127 routed experts with 7 a token and a shared
one, balance and z losses. Experts are spread over ranks; counts are exchanged first, then one copy of a token
for each of its chosen experts (all_to_all_single); dense parameters are replicated under
DistributedDataParallel, which reduces their gradients while the backward pass goes on. Clipping over all
ranks, fused AdamW on every parameter that a rank holds, one thread a rank.

Usage: gloo_moe_step.py [--ranks N] [--layers L] [--batch rows of a rank] [--steps N]
Prints one JSON object. --check: compares losses and gradients of a small model with one process's.
"""
import argparse
import json
import math
import os
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.95), 0.1, 1.0
BALANCE_WEIGHT, Z_WEIGHT, LM_Z_WEIGHT = 0.1, 1e-3, 1e-5
WARMUP = 1


@dataclass(frozen=True)
class Sizes:
    vocabulary: int = 8192   # V
    width: int = 256         # D
    layers: int = 8          # L
    heads: int = 8           # H
    expert_width: int = 128  # F
    experts: int = 127       # E, routed
    per_token: int = 7       # K, routed
    document: int = 256      # tokens of a document
    sequence: int = 1024
    smallest_pool: int = 7


class Traffic:
    """Bytes that this rank sends to others in the expert exchange."""

    def __init__(self):
        self.sent = 0

    def count(self, rows: torch.Tensor, splits: list[int], rank: int) -> None:
        others = sum(splits) - splits[rank]
        self.sent += others * rows[:1].numel() * rows.element_size() if len(rows) else 0


@dataclass(frozen=True)
class Group:
    """Where the experts are: consecutive ones on each rank, as even as it goes."""
    rank: int
    size: int
    traffic: Traffic
    processes: object = None  # a process group of its own, so that nothing waits behind gradients

    def first(self, rank: int, experts: int) -> int:
        return rank * experts // self.size


class AllToAll(torch.autograd.Function):
    """Rows to their ranks; gradients the way back."""

    @staticmethod
    def forward(context, rows, send, receive, group):
        context.splits, context.group = (receive, send), group
        return exchange(rows, send, receive, group)

    @staticmethod
    def backward(context, gradient):
        send, receive = context.splits
        return exchange(gradient.contiguous(), send, receive, context.group), None, None, None


def exchange(rows: torch.Tensor, send: list[int], receive: list[int], group: Group) -> torch.Tensor:
    if group.size == 1:
        return rows
    group.traffic.count(rows, send, group.rank)
    received = rows.new_empty((sum(receive), *rows.shape[1:]))
    dist.all_to_all_single(received, rows, receive, send, group=group.processes)
    return received


def matrix(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * 0.02)


def rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:  # x [N, H, S, D / H], angles [S, D / H / 2]
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Router(nn.Module):
    def __init__(self, sizes: Sizes, group: Group):
        super().__init__()
        self.sizes, self.group = sizes, group
        self.weight = matrix(sizes.experts, sizes.width)

    def forward(self, x, pool_sizes, totals):
        """x [T, D], pool_sizes [N] -> experts and weights [T, K], and the losses. `totals` are the tokens of
        all ranks; the counts of choices are summed over ranks."""
        s = self.sizes
        logits = F.linear(x, self.weight)
        with torch.no_grad():
            scores = logits.softmax(-1).view(-1, s.document, s.experts).sum(1)        # [N, E]
            place = scores.argsort(-1, descending=True).argsort(-1)                   # [N, E]
            outside = (place >= pool_sizes[:, None]).repeat_interleave(s.document, 0)  # [T, E]
        logits = logits.masked_fill(outside, -math.inf)
        probabilities = logits.softmax(-1)
        weights, experts = probabilities.topk(s.per_token, -1)
        counts = torch.bincount(experts.flatten(), minlength=s.experts).float()
        if self.group.size > 1:
            dist.all_reduce(counts)
        balance = s.experts / s.per_token * (counts / totals * probabilities.sum(0) / totals).sum()
        z = logits.logsumexp(-1).square().sum() / totals
        return experts, weights, (BALANCE_WEIGHT * balance + Z_WEIGHT * z) / s.layers


class Experts(nn.Module):
    """The routed experts of this rank."""

    def __init__(self, sizes: Sizes, group: Group):
        super().__init__()
        self.sizes, self.group = sizes, group
        here = [group.first(group.rank, sizes.experts), group.first(group.rank + 1, sizes.experts)]
        # All are drawn, so that every layout starts alike; this rank's are kept.
        drawn = [torch.randn(sizes.experts, *shape) * 0.02 for shape in
                 ((sizes.width, 2 * sizes.expert_width), (sizes.expert_width, sizes.width))]
        self.up, self.down = (nn.Parameter(w[here[0]:here[1]].clone()) for w in drawn)

    def forward(self, x, experts, weights):  # [T, D], [T, K], [T, K] -> [T, D]
        s, group = self.sizes, self.group
        order = experts.flatten().argsort(stable=True)
        wanted = torch.bincount(experts.flatten(), minlength=s.experts)  # [E] rows of ours
        bounds = [group.first(rank, s.experts) for rank in range(group.size + 1)]
        to_rank = [wanted[a:b] for a, b in zip(bounds, bounds[1:])]
        here = bounds[group.rank + 1] - bounds[group.rank]
        counts = exchange(wanted, [len(part) for part in to_rank], [here] * group.size, group).view(group.size, here)
        send, receive = [int(part.sum()) for part in to_rank], counts.sum(1).tolist()
        rows = AllToAll.apply(x[order // s.per_token], send, receive, group)
        by_expert = torch.arange(here).repeat(group.size).repeat_interleave(counts.flatten()).argsort(stable=True)
        ends = counts.sum(0).cumsum(0).to(torch.int32)
        gate, up = F.grouped_mm(rows[by_expert], self.up, offs=ends).chunk(2, dim=-1)
        out = F.grouped_mm(F.silu(gate) * up, self.down, offs=ends)
        arrived = torch.empty_like(out).index_copy(0, by_expert, out)
        back = AllToAll.apply(arrived, receive, send, group) * weights.flatten()[order, None]
        return torch.zeros_like(x).index_add(0, order // s.per_token, back)


class Block(nn.Module):
    def __init__(self, sizes: Sizes, group: Group):
        super().__init__()
        self.sizes = sizes
        D, F_ = sizes.width, sizes.expert_width
        self.attention_norm, self.moe_norm = nn.RMSNorm(D, eps=1e-6), nn.RMSNorm(D, eps=1e-6)
        self.qkv, self.out = matrix(3 * D, D), matrix(D, D)
        self.router = Router(sizes, group)
        self.shared_up, self.shared_down = matrix(2 * F_, D), matrix(D, F_)
        self.experts = Experts(sizes, group)

    def forward(self, x, angles, pool_sizes, totals):  # x [T, D]
        s = self.sizes
        qkv = F.linear(self.attention_norm(x), self.qkv)
        q, k, v = (part.view(-1, s.document, s.heads, s.width // s.heads).transpose(1, 2)
                   for part in qkv.chunk(3, dim=-1))
        attended = F.scaled_dot_product_attention(rotate(q, angles), rotate(k, angles), v, is_causal=True)
        x = x + F.linear(attended.transpose(1, 2).reshape(x.shape), self.out)
        h = self.moe_norm(x)
        experts, weights, loss = self.router(h, pool_sizes, totals)
        gate, up = F.linear(h, self.shared_up).chunk(2, dim=-1)
        shared = F.linear(F.silu(gate) * up, self.shared_down)
        return x + shared + self.experts(h, experts, weights), loss


class Model(nn.Module):
    def __init__(self, sizes: Sizes, group: Group):
        super().__init__()
        self.sizes = sizes
        self.embedding = matrix(sizes.vocabulary, sizes.width)
        self.blocks = nn.ModuleList(Block(sizes, group) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.width, eps=1e-6)
        self.head = matrix(sizes.vocabulary, sizes.width)

    def forward(self, tokens, pool_sizes, totals):
        """tokens [T], pool_sizes [L, N], `totals`: tokens of all ranks -> this rank's part of the loss. Each
        token predicts the next of its document."""
        s = self.sizes
        x = F.embedding(tokens, self.embedding)
        half = s.width // s.heads // 2
        angles = torch.outer(torch.arange(s.document), 500000.0 ** (-torch.arange(half) / half))
        loss = x.new_zeros(())
        for block, sizes_here in zip(self.blocks, pool_sizes):
            x, of_block = block(x, angles, sizes_here, totals)
            loss = loss + of_block
        logits = F.linear(self.norm(x), self.head)
        labels = tokens.view(-1, s.document).roll(-1, 1)
        labels[:, -1] = -100
        z = logits.logsumexp(-1)[labels.flatten() >= 0].square().sum()
        return loss + (F.cross_entropy(logits, labels.flatten(), reduction="sum") + LM_Z_WEIGHT * z) / totals

    def of_experts(self) -> list[nn.Parameter]:
        return [w for block in self.blocks for w in block.experts.parameters()]


def draw_batch(sizes: Sizes, rows: int, step: int):
    """Tokens [T] and pool sizes [L, N] of all ranks together; the same on each."""
    random = torch.Generator().manual_seed(1000 + step)
    tokens = torch.randint(0, sizes.vocabulary, (rows * sizes.sequence,), generator=random)
    documents = len(tokens) // sizes.document
    pools = torch.randint(sizes.smallest_pool, sizes.experts + 1, (sizes.layers, documents), generator=random)
    return tokens, pools


def share(batch, rank: int, ranks: int):
    tokens, pools = batch
    return tokens.chunk(ranks)[rank], pools.chunk(ranks, 1)[rank], len(tokens)


def distribute(model: Model) -> nn.Module:
    """Replicates what is not a routed expert; its gradients become means over ranks."""
    ours = [name for name, _ in model.named_parameters() if ".experts." in name]
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ours)
    return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)


def backward(model: Model, call: nn.Module, part, ranks: int) -> torch.Tensor:
    """Fills the gradients of the sum of all ranks' losses; the loss of this rank. As DDP takes means, it is
    given `ranks` times the loss, and the experts' gradients, which only their rank has, are divided."""
    loss = call(*part)
    (loss * ranks).backward()
    for w in model.of_experts():
        w.grad /= ranks
    return loss.detach()


def clip(model: Model) -> None:
    experts = model.of_experts()
    local = {id(w) for w in experts}
    square = sum(w.grad.square().sum() for w in experts)
    dist.all_reduce(square)
    square += sum(w.grad.square().sum() for w in model.parameters() if id(w) not in local)
    factor = (CLIP / (square.sqrt() + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_([w.grad for w in model.parameters()], factor)


def run_steps(rank: int, ranks: int, options) -> dict:
    sizes = Sizes(layers=options.layers)
    group = Group(rank, ranks, Traffic(), dist.new_group())
    torch.manual_seed(0)
    model = Model(sizes, group)
    call = distribute(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    seconds = []
    for step in range(WARMUP + options.steps):
        part = share(draw_batch(sizes, options.batch * ranks, step), rank, ranks)
        dist.barrier()
        if step == WARMUP:
            group.traffic.sent = 0
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = backward(model, call, part, ranks)
        clip(model)
        optimizer.step()
        if step >= WARMUP:
            seconds.append(time.perf_counter() - begin)
    slowest = torch.tensor([statistics.median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0],
                           dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    sent = torch.tensor([group.traffic.sent / options.steps / ranks], dtype=torch.float64)
    dist.all_reduce(sent)
    dist.all_reduce(loss)
    if not math.isfinite(loss):
        raise RuntimeError(f"the loss is {loss.item()}")
    experts = sum(w.numel() for w in model.of_experts())
    dense = sum(w.numel() for w in model.parameters()) - experts
    return {"tokens_per_second": options.batch * ranks * sizes.sequence / slowest[0].item(),
            "seconds_per_step": slowest[0].item(), "exchange_bytes_per_step": sent.item(),
            "gradient_bytes_per_step": 4 * dense * 2 * (ranks - 1) / ranks, "peak_memory_bytes": int(slowest[1]),
            "loss": loss.item(), "ranks": ranks, "threads_per_rank": torch.get_num_threads()}


def check(rank: int, ranks: int, _) -> dict:
    """Loss and gradients of a small model over ranks beside the whole model in one process."""
    sizes = Sizes(vocabulary=96, width=16, layers=2, heads=2, expert_width=8, experts=13, per_token=3, document=16,
                  sequence=64, smallest_pool=3)
    batch = draw_batch(sizes, 2 * ranks, 0)
    torch.manual_seed(0)
    group = Group(rank, ranks, Traffic(), dist.new_group())
    spread = Model(sizes, group)
    loss = backward(spread, distribute(spread), share(batch, rank, ranks), ranks)
    dist.all_reduce(loss)
    torch.manual_seed(0)
    whole = Model(sizes, Group(0, 1, Traffic()))
    expected = backward(whole, whole, share(batch, 0, 1), 1)
    here = slice(group.first(rank, sizes.experts), group.first(rank + 1, sizes.experts))
    worst = 0.0
    for (name, w), full in zip(spread.named_parameters(), whole.parameters()):
        reference = full.grad[here] if ".experts." in name else full.grad
        difference = ((w.grad - reference).abs().max() / reference.abs().max()).item()
        worst = max(worst, difference)
        if not difference < 1e-4:
            raise RuntimeError(f"rank {rank}: gradient of {name} is off by {difference:.2g} of its largest entry")
    if not abs(loss - expected) < 1e-5 * abs(expected):
        raise RuntimeError(f"loss {loss.item()}, in one process {expected.item()}")
    if ranks > 1 and group.traffic.sent == 0:
        raise RuntimeError("nothing travelled")
    return {"ranks": ranks, "loss": loss.item(), "largest_difference": worst}


def rank_main(rank: int, options, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=options.ranks)
    result = (check if options.check else run_steps)(rank, options.ranks, options)
    if rank == 0:
        print(json.dumps(result), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--layers", type=int, default=Sizes.layers)
    parser.add_argument("--batch", type=int, default=2, help="rows of 1024 tokens of a rank")
    parser.add_argument("--steps", type=int, default=3, help="timed steps; the median counts")
    parser.add_argument("--check", action="store_true", help="compare with one process instead of timing")
    options = parser.parse_args()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank_main, (options, f"{folder}/store"), nprocs=options.ranks)


if __name__ == "__main__":
    main()
