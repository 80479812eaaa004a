"""Training steps of Hugging Face transformers' OLMoE at the size of one of our benchmarks.

Prints one JSON object: tokens per second of each timed step. bf16 is torch's autocast: fp32 parameters,
matrix products in bf16.

The model is what transformers offers nearest to ours: the same widths, layers and experts per token.
It has 128 routed experts with 8 a token where ours has 127 with 7 and one shared, and its attention
runs over the whole row, since it is told of no documents.
"""
import argparse
import contextlib
import json
import time

import torch
from transformers import OlmoeConfig, OlmoeForCausalLM

# As in configs/NAME.yaml.
SIZES = {
    "bench-107m": {"hidden_size": 256, "intermediate_size": 128, "num_attention_heads": 8, "vocab_size": 8192,
                   "num_hidden_layers": 8, "max_position_embeddings": 1024},
    "bench-14b-3-layers": {"hidden_size": 2048, "intermediate_size": 1024, "num_attention_heads": 16,
                           "vocab_size": 100352, "num_hidden_layers": 3, "max_position_embeddings": 4096},
}
WARMUP = 1


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="bench-107m")
    parser.add_argument("--experts", choices=["grouped_mm", "eager"], default="grouped_mm")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--steps", type=int, default=3, help="timed steps")
    parser.add_argument("--layers", type=int, help="instead of the size's own")
    parser.add_argument("--batch", type=int, default=4, help="rows of a step")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser.parse_args()


def make_model(options: argparse.Namespace) -> OlmoeForCausalLM:
    sizes = dict(SIZES[options.size])
    if options.layers is not None:
        sizes["num_hidden_layers"] = options.layers
    torch.manual_seed(0)
    config = OlmoeConfig(
        **sizes, num_key_value_heads=sizes["num_attention_heads"], num_experts=128, num_experts_per_tok=8,
        tie_word_embeddings=False, use_cache=False, output_router_logits=True, router_aux_loss_coef=0.01,
        rope_theta=500000.0, attn_implementation="sdpa", experts_implementation=options.experts)
    with torch.device(options.device):
        return OlmoeForCausalLM(config).train()


def main() -> None:
    options = read_options()
    model = make_model(options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    shape = (options.batch, model.config.max_position_embeddings)
    on_gpu = options.device == "cuda"
    finish = torch.cuda.synchronize if on_gpu else contextlib.nullcontext
    rates = []
    for step in range(WARMUP + options.steps):
        tokens = torch.randint(0, model.config.vocab_size, shape, device=options.device)
        finish()
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16"):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        finish()
        seconds = time.perf_counter() - begin
        if step >= WARMUP:
            rates.append(tokens.numel() / seconds)
    print(json.dumps({"experts": options.experts, "precision": options.precision,
                      "parameters": sum(p.numel() for p in model.parameters()), "threads": torch.get_num_threads(),
                      "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
                      "tokens_per_second": rates}))


if __name__ == "__main__":
    main()
