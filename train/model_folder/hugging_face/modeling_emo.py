"""EMO models in transformers: evaluation, generation and plain fine-tuning.

Pre-norm blocks without biases; a router that takes a softmax over the routed experts and weighs the chosen ones by
it, not renormalised; shared experts with weight 1. There are no document pools: at inference every token may choose
among all routed experts (cut a model down to pool it).

What a caller asks for and these classes do not compute is refused: no argument is dropped without a word.
"""
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import nn
from transformers.cache_utils import DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import MoeCausalLMOutputWithPast, MoeModelOutputWithPast
from transformers.modeling_utils import PreTrainedModel

from .configuration_emo import EmoConfig

# What transformers calls keys and values in a model's arguments and answers: `cache` from 5.24 on.
CACHE = "cache" if "cache" in {field.name for field in fields(MoeModelOutputWithPast)} else "past_key_values"


def refuse_others(where: str, others: dict) -> None:
    """`others`: arguments that `where` does not know. None says nothing, so it may be left out."""
    asked = sorted(name for name, value in others.items() if value is not None)
    if asked:
        raise TypeError(f"{where}: no argument {', '.join(asked)}; it would be ignored, and results may be meant to "
                        "depend on it. Leave it out, or use another version of transformers if that is what passes it")


def the_cache(past_key_values, cache):
    """The one that was given, under its old or its new name."""
    if past_key_values is not None and cache is not None and past_key_values is not cache:
        raise ValueError("past_key_values and cache are two names of one argument; give one")
    return cache if past_key_values is None else past_key_values


class EmoRMSNorm(nn.Module):
    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return (wide * self.weight.float()).to(x.dtype)


def rotations(positions, head_dim: int, theta: float):
    """Cosines and sines, fp32 [B, 1, S, head_dim / 2]."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[:, None, :, None].float() * (1.0 / theta**exponents)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """Rotates dimension i of each head together with dimension i + head_dim / 2. x [B, H, S, head_dim]."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def attention_bias(mask, position_ids, past: int, x):
    """What is added to scores [B or 1, 1, S, keys]: 0 where a token may look, the lowest number elsewhere.

    `mask`: None (causal), [B, past + S] with 0 for padding, or a whole [B, 1, S, keys], boolean or additive (how
    documents of a row are confined). Without a mask, positions that start anew begin a document that sees nothing
    before it, as in transformers' own classes. x [B, S, width].
    """
    length = x.shape[1]
    lowest = torch.finfo(x.dtype).min
    if mask is not None and not isinstance(mask, torch.Tensor):
        raise TypeError(f"attention_mask is a {type(mask).__name__}, expected a tensor")
    if mask is not None and mask.dim() == 4:
        if mask.is_floating_point():
            return mask.clamp(min=lowest).to(x.dtype)
        if mask.dtype != torch.bool:
            raise ValueError(f"attention_mask of 4 dimensions is {mask.dtype}, expected booleans or what is added")
        allowed = mask
    else:
        keys = torch.arange(past + length, device=x.device)
        allowed = (keys[None, :] <= keys[past:, None])[None, None]
        if mask is not None:
            if mask.dim() != 2 or mask.shape[1] != past + length:
                raise ValueError(f"attention_mask is {list(mask.shape)}, expected [batch, {past + length}]")
            allowed = allowed & mask[:, None, None].bool()
        elif past == 0:
            steps = position_ids.diff(dim=-1, prepend=position_ids[:, :1] - 1)
            document = (steps != 1).cumsum(-1)
            allowed = allowed & (document[:, None, :, None] == document[:, None, None, :])
    return torch.zeros(allowed.shape, dtype=x.dtype, device=x.device).masked_fill(~allowed, lowest)


class EmoAttention(nn.Module):
    def __init__(self, config: EmoConfig, layer: int):
        super().__init__()
        self.config = config
        self.layer = layer
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.head_dim = width // self.heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        if config.qk_norm:
            self.q_norm = EmoRMSNorm(width, config.rms_norm_eps)
            self.k_norm = EmoRMSNorm(width, config.rms_norm_eps)

    def split(self, x):
        return x.view(*x.shape[:2], self.heads, self.head_dim).transpose(1, 2)

    def forward(self, x, bias, cos, sin, cache, past):
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = rotate(self.split(q), cos, sin), rotate(self.split(k), cos, sin), self.split(v)
        if cache is not None:
            # In 4.57 and 5.0 a cache of fixed size is told where the new keys stand; in later releases it counts.
            filled = past + x.shape[1]
            k, v = cache.update(k, v, self.layer, {"cache_position": torch.arange(past, filled, device=x.device)})
            if bias.shape[-1] == filled:  # it may have more room, which only masks that generate() makes know
                k, v = k[:, :, :filled], v[:, :, :filled]
        if bias.shape[-1] != k.shape[-2]:
            raise ValueError(f"attention_mask and cache_position are of {bias.shape[-1]} keys, there are {k.shape[-2]}")
        probabilities = None
        if self.config._attn_implementation == "sdpa":
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        else:
            scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5 + bias
            probabilities = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
            out = probabilities @ v
        out = out.transpose(1, 2).reshape(x.shape)
        return self.o_proj(out), probabilities


class EmoMLP(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class EmoSparseMoeBlock(nn.Module):
    def __init__(self, config: EmoConfig, experts: int):
        super().__init__()
        self.shared = config.num_shared_experts
        self.routed = experts - self.shared
        self.top_k = min(config.num_experts_per_tok - self.shared, self.routed)
        self.gate = nn.Linear(config.hidden_size, experts, bias=False)
        if config.selection_bias:  # not trained
            self.gate.register_buffer("e_score_correction_bias", torch.zeros(experts))
        self.experts = nn.ModuleList(EmoMLP(config.hidden_size, config.intermediate_size) for _ in range(experts))

    def forward(self, x):
        tokens = x.reshape(-1, x.shape[-1])
        logits = self.gate(tokens)
        scores = logits[:, : self.routed].float().softmax(dim=-1)
        weights, chosen = scores.topk(self.top_k, dim=-1)
        bias = getattr(self.gate, "e_score_correction_bias", None)
        if bias is not None:  # chosen by, not weighed by
            chosen = (scores + bias[: self.routed].float()).topk(self.top_k, dim=-1).indices
            weights = scores.gather(-1, chosen)
        weights = weights.to(tokens.dtype)
        out = torch.zeros_like(tokens)
        for expert in range(self.routed):
            token, slot = (chosen == expert).nonzero(as_tuple=True)
            if token.numel():
                out.index_add_(0, token, self.experts[expert](tokens[token]) * weights[token, slot, None])
        for expert in range(self.routed, self.routed + self.shared):
            out = out + self.experts[expert](tokens)
        return out.view(x.shape), logits


class EmoDecoderLayer(nn.Module):
    def __init__(self, config: EmoConfig, layer: int):
        super().__init__()
        width, experts = config.hidden_size, config.experts_of_layer(layer)
        self.pre_attention_layernorm = EmoRMSNorm(width, config.rms_norm_eps)
        self.self_attn = EmoAttention(config, layer)
        self.pre_feedforward_layernorm = EmoRMSNorm(width, config.rms_norm_eps)
        if experts:
            self.mlp = EmoSparseMoeBlock(config, experts)
        else:
            self.mlp = EmoMLP(width, config.dense_intermediate_size or config.intermediate_size)

    def forward(self, x, bias, cos, sin, cache, past):
        attended, probabilities = self.self_attn(self.pre_attention_layernorm(x), bias, cos, sin, cache, past)
        x = x + attended
        out = self.mlp(self.pre_feedforward_layernorm(x))
        out, logits = out if isinstance(out, tuple) else (out, None)
        return x + out, logits, probabilities


class EmoPreTrainedModel(PreTrainedModel):
    config_class = EmoConfig
    base_model_prefix = "model"
    _no_split_modules = ["EmoDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _supports_sdpa = True

    def _init_weights(self, module):
        # In place through `init`, which leaves alone what was loaded from a file.
        if isinstance(module, (nn.Linear, nn.Embedding)):
            deviation = self.config.initializer_range
            nn.init.trunc_normal_(module.weight, std=deviation, a=-3 * deviation, b=3 * deviation)
        elif isinstance(module, EmoRMSNorm):
            nn.init.ones_(module.weight)


class EmoModel(EmoPreTrainedModel):
    def __init__(self, config: EmoConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(EmoDecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = EmoRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed_tokens

    def set_input_embeddings(self, value):
        self.embed_tokens = value

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None,
                use_cache=None, output_hidden_states=None, output_attentions=None, output_router_logits=None,
                return_dict=None, cache=None, **others):
        config = self.config
        cache = the_cache(past_key_values, cache)
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        self.refuse_attention(config._attn_implementation, output_attentions)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, and not both")
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if cache is None and (config.use_cache if use_cache is None else use_cache):
            cache = DynamicCache()
        # In 4.57 and 5.0 generate() says where the tokens stand; a cache of fixed size there counts keys that are not
        # zero, which falls short where a padding token's embedding is.
        said = others.pop("cache_position", None)
        if said is not None:
            past = int(said[0])
        else:
            past = int(cache.get_seq_length()) if cache is not None else 0
        positions = torch.arange(past, past + x.shape[1], device=x.device)
        if said is not None and not torch.equal(said.to(x.device), positions):
            raise ValueError(f"cache_position {said.tolist()}: expected as many positions in a row as there are tokens")
        refuse_others("EmoModel", others)
        if position_ids is None:
            position_ids = positions[None]
        bias = attention_bias(attention_mask, position_ids, past, x)
        cos, sin = rotations(position_ids, config.hidden_size // config.num_attention_heads, config.rope_theta)
        hidden, attentions, router_logits = [x], [], []
        for layer in self.layers:
            x, logits, probabilities = layer(x, bias, cos, sin, cache, past)
            hidden.append(x)
            attentions.append(probabilities)
            if logits is not None:
                router_logits.append(logits)
        x = self.norm(x)
        hidden[-1] = x
        if output_router_logits is None:
            output_router_logits = getattr(config, "output_router_logits", False)
        out = MoeModelOutputWithPast(
            last_hidden_state=x,
            hidden_states=tuple(hidden) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
            router_logits=tuple(router_logits) if output_router_logits else None,
            **{CACHE: cache},
        )
        return out if (config.return_dict if return_dict is None else return_dict) else out.to_tuple()

    def refuse_attention(self, implementation: str, output_attentions: bool) -> None:
        if implementation not in ("eager", "sdpa"):
            raise ValueError(f"attn_implementation {implementation!r}: only 'eager' and 'sdpa' are there")
        if output_attentions and implementation != "eager":
            raise ValueError("output_attentions: 'sdpa' does not keep them; load with attn_implementation='eager'")


class EmoForCausalLM(EmoPreTrainedModel, GenerationMixin):
    def __init__(self, config: EmoConfig):
        super().__init__(config)
        self.model = EmoModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, value):
        self.model.embed_tokens = value

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None,
                labels=None, use_cache=None, output_hidden_states=None, output_attentions=None,
                output_router_logits=None, logits_to_keep=0, return_dict=None, num_items_in_batch=None, cache=None,
                **others):
        """`labels` [B, S]: -100 is ignored; the loss is the next token's cross-entropy, without balance losses: its
        mean, or with `num_items_in_batch` its sum divided by that, as Trainer wants it for accumulated gradients."""
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            output_router_logits=output_router_logits,
            return_dict=True,
            cache=the_cache(past_key_values, cache),
            **others,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(out.last_hidden_state[:, kept])
        out = MoeCausalLMOutputWithPast(
            loss=None if labels is None else next_token_loss(logits, labels, num_items_in_batch),
            logits=logits,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
            router_logits=out.router_logits,
            **{CACHE: getattr(out, CACHE)},
        )
        return out if (self.config.return_dict if return_dict is None else return_dict) else out.to_tuple()


def next_token_loss(logits, labels, count):
    """logits [B, S, V], labels [B, S]; the mean where `count` is None, else the sum divided by it."""
    loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten().to(logits.device),
                           ignore_index=-100, reduction="mean" if count is None else "sum")
    return loss if count is None else loss / count


__all__ = ["EmoConfig", "EmoForCausalLM", "EmoModel", "EmoPreTrainedModel"]
