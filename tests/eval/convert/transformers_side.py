"""What exchange_test.py asks of transformers, run once for each of its lines; every check compares with the
logits that `emo logits` wrote.

  make-olmoe FOLDER        writes an OLMoE of random weights, norms included
  logits FOLDER IN OUT     logits of transformers' own classes, without ours
  compare FOLDER IN ...    our classes: IN holds input_ids, document_ends, and our logits as `rows` and `documents`;
                           prints the greedy continuation of the first row
  tokenize FOLDER TEXT
  cut FOLDER OUT           cuts layers to numbers of experts of their own; compares with the uncut model whose
                           router is told to leave the others out
"""
import json
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, OlmoeConfig, OlmoeForCausalLM

TOLERANCE = 1e-4
transformers.logging.set_verbosity_error()
torch.manual_seed(0)


def expect_equal(a, b, what):
    difference = (a - b).abs().max().item()
    assert difference <= TOLERANCE, f"{what}: logits differ by {difference}"
    assert b.abs().max() > 0.05, f"{what}: logits are all but zero, which proves nothing"


def load(folder, **options):
    model, report = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, output_loading_info=True,
                                                         **options)
    wrong = {k: v for k, v in report.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    assert not wrong, f"{folder}: {wrong}"
    return model.eval()


def make_olmoe(folder):
    config = OlmoeConfig(vocab_size=97, hidden_size=48, intermediate_size=20, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=4, num_experts=9, num_experts_per_tok=3,
                         pad_token_id=1, eos_token_id=0, max_position_embeddings=128, initializer_range=0.3)
    model = OlmoeForCausalLM(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(folder)


def document_mask(ends, rows, length):
    """Additive [B, 1, S, S]: a token sees the tokens of its own document up to itself."""
    document = torch.bucketize(torch.arange(rows * length), ends, right=True).view(rows, length)
    allowed = (document[:, :, None] == document[:, None, :]) & torch.ones(length, length).tril().bool()
    return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[:, None]


def compare(folder, path):
    given = load_file(path)
    ids, rows, documents = given["input_ids"], given["rows"], given["documents"]
    B, S = ids.shape
    for attention in ("eager", "sdpa"):
        model = load(folder, attn_implementation=attention)
        assert model.config._attn_implementation == attention
        expect_equal(model(ids, use_cache=False).logits, rows, f"{attention}, no cache")
        expect_equal(model(ids, attention_mask=document_mask(given["document_ends"], B, S)).logits, documents,
                     f"{attention}, documents")
        allowed = document_mask(given["document_ends"], B, S) == 0
        expect_equal(model(ids, attention_mask=allowed).logits, documents, f"{attention}, documents as booleans")
        first = model(ids[:, :5], use_cache=True)
        parts, cache = [first.logits], first.past_key_values
        for at in (slice(5, 6), slice(6, S)):
            out = model(ids[:, at], past_key_values=cache, use_cache=True)
            parts.append(out.logits)
            cache = out.past_key_values
        expect_equal(torch.cat(parts, 1), rows, f"{attention}, with a cache")
        padding = torch.tensor([[0, 0, 0]]).expand(B, -1)
        mask = torch.cat([torch.zeros_like(padding), torch.ones_like(ids)], 1)
        expect_equal(model(torch.cat([padding, ids], 1), attention_mask=mask).logits[:, 3:], rows,
                     f"{attention}, padded left")
        labels = ids.clone()
        labels[0] = -100
        loss = model(ids, labels=labels).loss
        wanted = torch.nn.functional.cross_entropy(rows[1:, :-1].flatten(0, 1), ids[1:, 1:].flatten())
        assert abs(loss - wanted) < 1e-4, f"loss {loss}, expected {wanted}"
    ends = model.generation_config.eos_token_id
    out = model.generate(ids[:1, :5], attention_mask=torch.ones(1, 5, dtype=torch.long), max_new_tokens=8,
                         do_sample=False, pad_token_id=0)
    two = model.generate(torch.cat([torch.zeros(1, 2, dtype=torch.long), ids[:1, :5]], 1), do_sample=False,
                         attention_mask=torch.tensor([[0, 0, 1, 1, 1, 1, 1]]), max_new_tokens=8, pad_token_id=0,
                         use_cache=False)
    assert out[0, 5:].tolist() == two[0, 7:].tolist(), "a cache, or padding, changes the greedy text"
    return {"greedy": out[0, 5:].tolist(), "ends": ends if isinstance(ends, list) else [ends]}


def cut(folder, out):
    model = load(folder)
    config = model.config
    routed = config.num_experts - config.num_shared_experts
    kept = [sorted(torch.randperm(routed)[: routed - 1 - 2 * layer].tolist()) for layer in range(config.num_hidden_layers)]
    state, small = model.state_dict(), {}
    for name, tensor in state.items():
        parts = name.split(".")
        layer = int(parts[2]) if parts[1] == "layers" else 0
        experts = kept[layer] + list(range(routed, config.num_experts))
        if name.endswith("mlp.gate.weight"):
            tensor = tensor[experts]
        elif ".mlp.experts." in name:
            if int(parts[5]) not in experts:
                continue
            parts[5] = str(experts.index(int(parts[5])))
        small[".".join(parts)] = tensor.contiguous()
    from pathlib import Path
    import shutil
    Path(out).mkdir()
    save_file(small, f"{out}/model.safetensors", {"format": "pt"})
    content = json.loads(Path(folder, "config.json").read_text())
    content["num_experts_per_layer"] = [len(k) + config.num_shared_experts for k in kept]
    Path(out, "config.json").write_text(json.dumps(content))
    for name in ("configuration_emo.py", "modeling_emo.py"):
        shutil.copy(Path(folder, name), out)
    ids = torch.randint(0, config.vocab_size, (2, 15))
    for layer, block in enumerate(model.model.layers):
        gone = [e for e in range(routed) if e not in kept[layer]]

        def leave_out(_module, _inputs, logits, gone=gone):
            logits[:, gone] = -torch.inf
            return logits
        block.mlp.gate.register_forward_hook(leave_out)
    expect_equal(load(out)(ids).logits, model(ids).logits, "layers with their own numbers of experts")


def main():
    action, *arguments = sys.argv[1:]
    with torch.no_grad():
        if action == "make-olmoe":
            make_olmoe(*arguments)
        elif action == "logits":
            folder, path, out = arguments
            model = OlmoeForCausalLM.from_pretrained(folder).eval()
            save_file({"logits": model(load_file(path)["input_ids"]).logits}, out)
        elif action == "compare":
            print(json.dumps({"models": [compare(*pair) for pair in zip(arguments[::2], arguments[1::2], strict=True)]}))
        elif action == "cut":
            cut(*arguments)
        elif action == "tokenize":
            tokenizer = AutoTokenizer.from_pretrained(arguments[0], trust_remote_code=True)
            inputs = tokenizer(arguments[1])  # what generate() takes, as docs/serving.md has it
            print(json.dumps({"ids": inputs["input_ids"], "eos": tokenizer.eos_token, "fields": sorted(inputs)}))
        else:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
