"""Training steps of Hugging Face transformers' OLMoE at the size of configs/bench-107m.yaml.

Prints one JSON object: tokens per second of each timed step.
Usage: olmoe_step.py [grouped_mm|eager] [fp32|bf16] [steps] [layers]
bf16 is torch's autocast: fp32 parameters, matrix products in bf16.

The model is what transformers offers nearest to ours: the same widths, layers and experts per token.
It has 128 routed experts with 8 a token where ours has 127 with 7 and one shared, and its attention
runs over the whole row of 1024 tokens, since it is told of no documents.
"""
import json
import sys
import time

import torch
from transformers import OlmoeConfig, OlmoeForCausalLM

BATCH, SEQUENCE, VOCABULARY, WARMUP = 4, 1024, 8192, 1


def main() -> None:
    experts = sys.argv[1] if len(sys.argv) > 1 else "grouped_mm"
    precision = sys.argv[2] if len(sys.argv) > 2 else "fp32"
    steps = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    layers = int(sys.argv[4]) if len(sys.argv) > 4 else 8
    torch.manual_seed(0)
    config = OlmoeConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=128, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8, num_experts=128, num_experts_per_tok=8,
        max_position_embeddings=SEQUENCE, tie_word_embeddings=False, use_cache=False,
        output_router_logits=True, router_aux_loss_coef=0.01, rope_theta=500000.0,
        attn_implementation="sdpa", experts_implementation=experts)
    model = OlmoeForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1,
                                  fused=True)
    rates = []
    for step in range(WARMUP + steps):
        tokens = torch.randint(0, VOCABULARY, (BATCH, SEQUENCE))
        begin = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds = time.perf_counter() - begin
        if step >= WARMUP:
            rates.append(BATCH * SEQUENCE / seconds)
    print(json.dumps({"experts": experts, "precision": precision, "parameters": sum(p.numel() for p in model.parameters()),
                      "threads": torch.get_num_threads(), "tokens_per_second": rates}))


if __name__ == "__main__":
    main()
