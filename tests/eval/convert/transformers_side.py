"""What conversion_test.py asks of one release of transformers: answers requests, a JSON list of an action and its
arguments a line, with a JSON object a line, {"answer": ...} or {"error": ...}, until its input ends. Every check
compares with the logits that `emo logits` wrote.

  version
  make-olmoe FOLDER        writes an OLMoE of random weights, norms included
  logits FOLDER IN OUT     logits of transformers' own classes, without ours
  compare FOLDER IN        our classes: IN holds input_ids, document_ends, and our logits as `rows` and `documents`
  generate FOLDER IN       greedy text with and without caches, padded and not; answers that of the first prompt
  arguments FOLDER         what forward() computes by its arguments, and what it refuses
  tokenize FOLDER TEXT
  cut FOLDER OUT           cuts layers to numbers of experts of their own; compares with the uncut model whose
                           router is told to leave the others out
  save FOLDER OUT          loads model and tokenizer and saves them
  trained-rows FOLDER      ids whose rows of the embedding get a gradient, of all ids once
"""
import json
import logging
import os
import shutil
import sys
import traceback
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, OlmoeConfig, OlmoeForCausalLM

TOLERANCE = 1e-4
RELEASE = tuple(int(part) for part in transformers.__version__.split(".")[:2])
CACHE = "cache" if RELEASE >= (5, 24) else "past_key_values"  # of generate() and of answers
transformers.logging.set_verbosity_error()


class Deprecated(logging.Handler):
    """Keeps what transformers says of names of arguments and answers that are on their way out."""
    def __init__(self):
        super().__init__()
        self.said = []
        logger = logging.getLogger("transformers.utils.generic")
        logger.setLevel(logging.WARNING)
        logger.addHandler(self)

    def emit(self, record):
        if "deprecated" in record.getMessage():
            self.said.append(record.getMessage())


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
        parts, cache = [first.logits], getattr(first, CACHE)
        for at in (slice(5, 6), slice(6, S)):
            out = model(ids[:, at], **{CACHE: cache}, use_cache=True)
            parts.append(out.logits)
            cache = getattr(out, CACHE)
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


def generate(folder, path):
    """Prompts of 5, 3 and 8 tokens, alone and as one batch with padding on the left."""
    ids = load_file(path)["input_ids"]
    answers = {}
    for attention in ("eager", "sdpa"):
        model = load(folder, attn_implementation=attention)

        def continued(tokens, mask, model=model, **options):
            out = model.generate(tokens, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0,
                                 eos_token_id=None, **options)
            return out[:, tokens.shape[1]:].tolist()
        prompts = [row[:length] for row, length in zip(ids, (5, 3, 8))]
        alone = [continued(prompt[None], torch.ones(1, len(prompt), dtype=torch.long), use_cache=False)[0]
                 for prompt in prompts]
        assert len(set(map(tuple, alone))) > 1, "all prompts give the same text, which proves little"
        batch, mask = torch.zeros(3, 8, dtype=torch.long), torch.zeros(3, 8, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            batch[i, 8 - len(prompt):], mask[i, 8 - len(prompt):] = prompt, 1
        fixed = {"cache_implementation": "static", "disable_compile": True}
        for name, options in {"no cache": {"use_cache": False}, "a cache": {}, "a given cache": {CACHE: DynamicCache()},
                              "a cache of fixed size": fixed}.items():
            found = continued(batch, mask, **options)
            assert found == alone, f"{attention}, {name}, padded left: {found}, alone {alone}"
        beams = [continued(batch, mask, num_beams=3, use_cache=use) for use in (True, False)]
        assert beams[0] == beams[1], f"{attention}: beams {beams[0]} with a cache, {beams[1]} without"
        answers[attention] = alone
    assert answers["eager"] == answers["sdpa"], str(answers)
    return answers["sdpa"][0]


def arguments(folder):
    model = load(folder)
    ids = torch.randint(1, model.config.vocab_size, (2, 9))
    labels = ids.clone()
    labels[0, :6] = -100
    count = int((labels[:, 1:] != -100).sum())
    mean = model(ids, labels=labels).loss
    for items in (count, torch.tensor(2 * count)):
        loss = model(ids, labels=labels, num_items_in_batch=items).loss
        assert abs(loss - mean * count / items) < 1e-5, f"num_items_in_batch {items}: {loss}, the mean is {mean}"
    whole = model(ids).logits
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    expect_equal(model(ids, position_ids=positions).logits[:, 4:], model(ids[:, 4:]).logits, "a document begins anew")
    expect_equal(model(ids, logits_to_keep=2).logits, whole[:, -2:], "logits_to_keep")
    expect_equal(model(inputs_embeds=model.get_input_embeddings()(ids)).logits, whole, "embeddings given")
    expect_equal(model(ids, return_dict=False)[0], whole, "a tuple")
    expect_equal(model(ids, token_type_ids=None, head_mask=None).logits, whole, "None says nothing")
    assert len(model(ids, output_hidden_states=True).hidden_states) == model.config.num_hidden_layers + 1
    refused = {"cu_seq_lens_q": torch.tensor([0, 4, 9]), "is_causal": False, "head_mask": torch.ones(1),
               "token_type_ids": ids, "seq_idx": ids, "shift_labels": labels, "output_attentions": True,
               "attention_mask": torch.ones(2, 5), "cache_position": torch.arange(3, 12),
               "attention_mask ": torch.ones(2, 1, 9, 5), "cache_position ": torch.arange(9).flip(0),
               "attention_mask  ": torch.ones(2, 1, 9, 9, dtype=torch.long),
               "inputs_embeds": model.get_input_embeddings()(ids)}
    for name, value in refused.items():
        try:
            model(ids, **{name.strip(): value})
        except (TypeError, ValueError) as error:
            assert name.strip() in str(error), f"{name}: {error}"
        else:
            raise AssertionError(f"{name} was accepted and ignored")
    config = type(model.config)
    for key, value in {"rope_scaling": {"rope_type": "yarn"}, "rope_parameters": {"rope_type": "linear", "factor": 2.0},
                       "tie_word_embeddings": True, "sliding_window": 16, "clip_qkv": 8.0, "norm_topk_prob": True,
                       "num_shared_experts_per_layer": [1, 2], "always_active_experts": [0]}.items():
        try:
            config(**{key: value})
        except ValueError as error:
            assert key in str(error), f"{key}: {error}"
        else:
            raise AssertionError(f"config {key} was accepted and ignored")


def save(folder, out):
    load(folder).save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, trust_remote_code=True).save_pretrained(out)


def trained_rows(folder):
    model = load(folder)
    with torch.enable_grad():
        ids = torch.arange(model.config.vocab_size)[None]
        model(ids, labels=ids.flip(1)).loss.backward()
    gradient = model.get_input_embeddings().weight.grad.abs().sum(-1)
    return gradient.nonzero().flatten().tolist()


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


def own_logits(folder, path, out):
    model = OlmoeForCausalLM.from_pretrained(folder).eval()
    save_file({"logits": model(load_file(path)["input_ids"]).logits}, out)


def tokenize(folder, text):
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    inputs = tokenizer(text)  # what generate() takes, as docs/serving.md has it
    return {"ids": inputs["input_ids"], "eos": tokenizer.eos_token, "fields": sorted(inputs)}


ACTIONS = {"version": lambda: transformers.__version__, "make-olmoe": make_olmoe, "logits": own_logits,
           "compare": compare, "generate": generate, "arguments": arguments, "tokenize": tokenize, "cut": cut,
           "save": save, "trained-rows": trained_rows}


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what else is printed is no answer
    deprecated = Deprecated()
    for line in sys.stdin:
        action, *given = json.loads(line)
        torch.manual_seed(0)
        try:
            with torch.no_grad():
                answer = {"answer": ACTIONS[action](*given)}
            assert not deprecated.said, f"{action}: {deprecated.said}"
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
