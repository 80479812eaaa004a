"""Configuration of EMO models: mixtures of experts with shared experts, and dense layers between them."""
from transformers.configuration_utils import PretrainedConfig

# What other configs may ask for and these classes do not compute.
CHANGES_RESULTS = ("norm_topk_prob", "attention_bias", "attention_dropout", "clip_qkv", "sliding_window",
                   "always_active_experts", "always_active_experts_per_layer", "dense_mlp_bias", "ghost_extend_eval")


class EmoConfig(PretrainedConfig):
    """`num_experts` and `num_experts_per_tok` count the shared experts, which are the last ones of a layer.

    `num_experts_per_layer` gives each layer its own number, where experts were cut away layer by layer; 0 is a
    dense layer of width `dense_intermediate_size`. `qk_norm` normalises queries and keys, as OLMoE does.
    With `selection_bias` experts are chosen by their scores plus a bias, as DeepSeek-V3's are.
    """

    model_type = "emo"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]

    def __init__(
        self,
        vocab_size=100352,
        hidden_size=2048,
        intermediate_size=1024,
        num_hidden_layers=16,
        num_attention_heads=16,
        num_key_value_heads=None,
        hidden_act="silu",
        max_position_embeddings=4096,
        initializer_range=0.02,
        rms_norm_eps=1e-6,
        rope_theta=500000.0,
        num_experts=128,
        num_experts_per_tok=8,
        num_shared_experts=1,
        num_experts_per_layer=None,
        dense_intermediate_size=None,
        qk_norm=False,
        selection_bias=False,
        use_cache=True,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.hidden_act = hidden_act
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.rms_norm_eps = rms_norm_eps
        self.num_experts = num_experts
        self.num_experts_per_tok = num_experts_per_tok
        self.num_shared_experts = num_shared_experts
        self.num_experts_per_layer = num_experts_per_layer
        self.dense_intermediate_size = dense_intermediate_size
        self.qk_norm = qk_norm
        self.selection_bias = selection_bias
        self.use_cache = use_cache
        # Releases of transformers from 5 on keep this in rope_parameters too; both say the same.
        rope = kwargs.get("rope_parameters") or {}
        self.rope_theta = rope.get("rope_theta", rope_theta)
        refuse(hidden_act != "silu", f"hidden_act {hidden_act!r}: experts are SwiGLU")
        refuse(self.num_key_value_heads != num_attention_heads, "num_key_value_heads must be num_attention_heads")
        refuse(tie_word_embeddings, "tie_word_embeddings: embedding and head are two tensors")
        for key in ("rope_parameters", "rope_scaling"):
            kind = kwargs.get(key) or {}
            kind = kind.get("rope_type", kind.get("type", "default"))
            refuse(kind != "default", f"{key}: {kind!r} is not supported")
        shared = kwargs.get("num_shared_experts_per_layer") or []
        refuse(set(shared) - {0, num_shared_experts}, f"num_shared_experts_per_layer {shared}: all layers have as many")
        for key in CHANGES_RESULTS:
            refuse(kwargs.get(key), f"{key} {kwargs.get(key)!r} is not supported")
        super().__init__(
            pad_token_id=pad_token_id,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            tie_word_embeddings=tie_word_embeddings,
            **kwargs,
        )

    def experts_of_layer(self, layer: int) -> int:
        """Shared experts counted; 0 in a dense layer."""
        return self.num_experts_per_layer[layer] if self.num_experts_per_layer else self.num_experts


def refuse(condition, reason: str) -> None:
    if condition:
        raise ValueError(f"EmoConfig: {reason}")


__all__ = ["EmoConfig"]
