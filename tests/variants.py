"""What `make.py` makes: every fixture's config.json, with the keys that checkpoints on the Hub have and tiny sizes."""

import math

import torch

from chatglm import divides_positions

GONE = object()  # in a variant's config: leave this key out


# ------------------------------------------------------------------------------------------------------------------
# The families: config.json as the Hub has it, with tiny sizes.


def llama(**keys):
    """Llama-2's keys. `rope_theta` is absent there: 10000 is the default."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 24,
        "initializer_range": 0.02,
        "intermediate_size": 52,
        "max_position_embeddings": 64,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.31.0",
        "use_cache": True,
        "vocab_size": 67,
        **keys,
    }


def mistral(**keys):
    """Mistral-7B-v0.1's keys."""
    return {
        "architectures": ["MistralForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 24,
        "initializer_range": 0.02,
        "intermediate_size": 37,
        "max_position_embeddings": 128,
        "model_type": "mistral",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "sliding_window": 8,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.34.0.dev0",
        "use_cache": True,
        "vocab_size": 67,
        **keys,
    }


def opt(**keys):
    """facebook/opt-125m's keys. There is none for the norm's epsilon (1e-5) nor for tying (true)."""
    return {
        "_remove_final_layer_norm": False,
        "activation_dropout": 0.0,
        "activation_function": "relu",
        "architectures": ["OPTForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 2,
        "do_layer_norm_before": True,
        "dropout": 0.1,
        "eos_token_id": 2,
        "ffn_dim": 52,
        "hidden_size": 24,
        "init_std": 0.02,
        "layerdrop": 0.0,
        "max_position_embeddings": 40,
        "model_type": "opt",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "pad_token_id": 1,
        "prefix": "</s>",
        "torch_dtype": "float32",
        "transformers_version": "4.21.0.dev0",
        "use_cache": True,
        "vocab_size": 67,
        "word_embed_proj_dim": 24,
        **keys,
    }


def bloom(**keys):
    """bigscience/bloom-560m's keys, most of which mean nothing to the model."""
    return {
        "apply_residual_connection_post_layernorm": False,
        "architectures": ["BloomForCausalLM"],
        "attention_dropout": 0.0,
        "attention_softmax_in_fp32": True,
        "bias_dropout_fusion": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_dropout": 0.0,
        "hidden_size": 24,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "masked_softmax_fusion": True,
        "model_type": "bloom",
        "n_head": 8,
        "n_inner": None,
        "n_layer": 2,
        "offset_alibi": 100,
        "pad_token_id": 3,
        "pretraining_tp": 1,
        "seq_length": 2048,
        "skip_bias_add": True,
        "skip_bias_add_qkv": False,
        "slow_but_exact": False,
        "torch_dtype": "float32",
        "transformers_version": "4.20.0",
        "unk_token_id": 0,
        "use_cache": True,
        "vocab_size": 67,
        **keys,
    }


def gpt2(**keys):
    """openai-community/gpt2's keys: no torch_dtype and no tie_word_embeddings (true)."""
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 66,
        "embd_pdrop": 0.1,
        "eos_token_id": 66,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": 40,
        "n_embd": 24,
        "n_head": 4,
        "n_layer": 2,
        "n_positions": 40,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 67,
        **keys,
    }


def qwen2(**keys):
    """Qwen2.5-0.5B's keys. `sliding_window` and `max_window_layers` mean nothing without `use_sliding_window`."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 66,
        "eos_token_id": 66,
        "hidden_act": "silu",
        "hidden_size": 28,
        "initializer_range": 0.02,
        "intermediate_size": 37,
        "max_position_embeddings": 64,
        "max_window_layers": 1,
        "model_type": "qwen2",
        "num_attention_heads": 7,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 8,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.1",
        "use_cache": True,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": 67,
        **keys,
    }


def qwen3(**keys):
    """Qwen3-0.6B's keys."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 65,
        "eos_token_id": 66,
        "head_dim": 8,
        "hidden_act": "silu",
        "hidden_size": 20,
        "initializer_range": 0.02,
        "intermediate_size": 35,
        "max_position_embeddings": 64,
        "max_window_layers": 2,
        "model_type": "qwen3",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 67,
        **keys,
    }


def gemma(**keys):
    """gemma-2b's keys as first published. transformers reads its `hidden_act` gelu as the tanh one, on purpose."""
    return {
        "architectures": ["GemmaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "head_dim": 10,
        "hidden_act": "gelu",
        "hidden_size": 24,
        "initializer_range": 0.02,
        "intermediate_size": 37,
        "max_position_embeddings": 64,
        "model_type": "gemma",
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.38.0.dev0",
        "use_cache": True,
        "vocab_size": 67,
        **keys,
    }


def gemma2(**keys):
    """gemma-2-2b's keys. Layers 0, 2, ... have the window; there is no key for that."""
    return {
        "architectures": ["Gemma2ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": 8.0,
        "bos_token_id": 2,
        "cache_implementation": "hybrid",
        "eos_token_id": 1,
        "final_logit_softcapping": 6.0,
        "head_dim": 10,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 20,
        "initializer_range": 0.02,
        "intermediate_size": 33,
        "max_position_embeddings": 64,
        "model_type": "gemma2",
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 7,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": 8,
        "torch_dtype": "float32",
        "transformers_version": "4.42.4",
        "use_cache": True,
        "vocab_size": 67,
        **keys,
    }


def gemma3(**keys):
    """gemma-3-1b's keys, with a shorter `sliding_window_pattern` than its six and the scaling of the larger ones."""
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "bos_token_id": 2,
        "cache_implementation": "hybrid",
        "eos_token_id": [1, 66],
        "final_logit_softcapping": None,
        "head_dim": 10,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 20,
        "initializer_range": 0.02,
        "intermediate_size": 33,
        "max_position_embeddings": 64,
        "model_type": "gemma3_text",
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 7,
        "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "rope_theta": 1000000,
        "sliding_window": 8,
        "sliding_window_pattern": 2,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
        "use_cache": True,
        "vocab_size": 67,
        **keys,
    }


def gemma3_vision(**text):
    """gemma-3-4b's keys: the text model's are one object among others, and say little. Its 8 heads are a default."""
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": 255999,
        "eoi_token_index": 256000,
        "eos_token_id": [1, 66],
        "image_token_index": 262144,
        "initializer_range": 0.02,
        "mm_tokens_per_image": 1,
        "model_type": "gemma3",
        "text_config": {
            "head_dim": 4,
            "hidden_size": 16,
            "intermediate_size": 20,
            "model_type": "gemma3_text",
            "num_hidden_layers": 7,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 8,
            "vocab_size": 67,
            **text,
        },
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
        "vision_config": {
            "hidden_size": 4,
            "image_size": 4,
            "intermediate_size": 5,
            "model_type": "siglip_vision_model",
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "patch_size": 4,
            "vision_use_head": False,
        },
    }


def stablelm(**keys):
    """stablelm-zephyr-3b's keys."""
    return {
        "architectures": ["StableLmForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "silu",
        "hidden_dropout": 0.0,
        "hidden_size": 24,
        "initializer_range": 0.02,
        "intermediate_size": 35,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 64,
        "model_type": "stablelm",
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "num_key_value_heads": 3,
        "partial_rotary_factor": 0.25,
        "rope_theta": 10000,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.38.0.dev0",
        "use_cache": True,
        "use_qkv_bias": False,
        "vocab_size": 67,
        **keys,
    }


def phi(**keys):
    """phi-1_5's keys: nulls for the special tokens and for `num_key_value_heads`."""
    return {
        "architectures": ["PhiForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "embd_pdrop": 0.0,
        "eos_token_id": None,
        "hidden_act": "gelu_new",
        "hidden_size": 24,
        "initializer_range": 0.02,
        "intermediate_size": 37,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 64,
        "model_type": "phi",
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "num_key_value_heads": None,
        "partial_rotary_factor": 0.5,
        "qk_layernorm": False,
        "resid_pdrop": 0.0,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.37.0",
        "use_cache": True,
        "vocab_size": 67,
        **keys,
    }


def phi3(**keys):
    """Phi-3-mini-4k's keys."""
    return {
        "architectures": ["Phi3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_phi3.Phi3Config",
            "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
        },
        "bos_token_id": 1,
        "embd_pdrop": 0.0,
        "eos_token_id": 66,
        "hidden_act": "silu",
        "hidden_size": 24,
        "initializer_range": 0.02,
        "intermediate_size": 35,
        "max_position_embeddings": 64,
        "model_type": "phi3",
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "num_key_value_heads": 3,
        "original_max_position_embeddings": 64,
        "pad_token_id": 66,
        "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": 7,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.2",
        "use_cache": True,
        "vocab_size": 67,
        **keys,
    }


def phi3_long(kind="longrope", **keys):
    """Phi-3-mini-128k's keys: factors for texts up to the original length, and for longer ones."""
    return phi3(
        max_position_embeddings=64,
        original_max_position_embeddings=16,
        rope_scaling={"long_factor": [1.1, 2.5, 7.0, 16.0], "short_factor": [1.0, 1.1, 1.4, 2.0], "type": kind},
        sliding_window=262144,
        **keys,
    )


def falcon(**keys):
    """falcon-7b's keys. There is none for tying (true), for the rotary base, nor for the width of the MLP (4 x)."""
    return {
        "alibi": False,
        "apply_residual_connection_post_layernorm": False,
        "architectures": ["FalconForCausalLM"],
        "attention_dropout": 0.0,
        "bias": False,
        "bos_token_id": 11,
        "eos_token_id": 11,
        "hidden_dropout": 0.0,
        "hidden_size": 18,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "falcon",
        "multi_query": True,
        "new_decoder_architecture": False,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "parallel_attn": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.27.4",
        "use_cache": True,
        "vocab_size": 67,
        **keys,
    }


def old_falcon(**keys):
    """falcon-7b's keys as first published, with its own code beside it."""
    old = falcon(
        architectures=["RWForCausalLM"],
        auto_map={"AutoConfig": "configuration_RW.RWConfig", "AutoModelForCausalLM": "modelling_RW.RWForCausalLM"},
        model_type="RefinedWebModel",
        n_head=3,
        n_layer=2,
        **keys,
    )
    for key in ("new_decoder_architecture", "num_attention_heads", "num_hidden_layers"):
        del old[key]
    return old


def gpt_neox(**keys):
    """pythia-70m's keys."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "gelu",
        "hidden_size": 24,
        "initializer_range": 0.02,
        "intermediate_size": 37,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 28,
        "model_type": "gpt_neox",
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.24.0",
        "use_cache": True,
        "use_parallel_residual": True,
        "vocab_size": 67,
        **keys,
    }


def gpt_neo(**keys):
    """gpt-neo-125m's keys. There is none for tying (true)."""
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPTNeoForCausalLM"],
        "attention_dropout": 0,
        "attention_layers": ["global", "local"],
        "attention_types": [[["global", "local"], 1]],
        "bos_token_id": 66,
        "embed_dropout": 0,
        "eos_token_id": 66,
        "gradient_checkpointing": False,
        "hidden_size": 16,
        "initializer_range": 0.02,
        "intermediate_size": None,
        "layer_norm_epsilon": 1e-05,
        "max_position_embeddings": 32,
        "model_type": "gpt_neo",
        "num_heads": 4,
        "num_layers": 2,
        "resid_dropout": 0,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "transformers_version": "4.9.0.dev0",
        "use_cache": True,
        "vocab_size": 67,
        "window_size": 8,
        **keys,
    }


def mpt(attention=(), **keys):
    """mpt-7b's keys, those of the attention in an object of their own. There is none for the norm's epsilon (1e-5)."""
    return {
        "architectures": ["MPTForCausalLM"],
        "attn_config": {
            "alibi": True,
            "alibi_bias_max": 8,
            "attn_impl": "torch",
            "attn_pdrop": 0,
            "attn_type": "multihead_attention",
            "attn_uses_sequence_id": False,
            "clip_qkv": None,
            "prefix_lm": False,
            "qk_ln": False,
            "softmax_scale": None,
            **dict(attention),
        },
        "d_model": 20,
        "emb_pdrop": 0,
        "embedding_fraction": 1.0,
        "expansion_ratio": 4,
        "init_config": {"emb_init_std": None, "init_nonlinearity": "relu", "name": "kaiming_normal_", "verbose": 0},
        "init_device": "cpu",
        "learned_pos_emb": True,
        "logit_scale": None,
        "max_seq_len": 64,
        "model_type": "mpt",
        "n_heads": 4,
        "n_layers": 2,
        "no_bias": True,
        "norm_type": "low_precision_layernorm",
        "resid_pdrop": 0,
        "tokenizer_name": "EleutherAI/gpt-neox-20b",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.28.1",
        "use_cache": False,
        "verbose": 0,
        "vocab_size": 67,
        **keys,
    }


def olmo(**keys):
    """OLMo-7B-hf's keys. There is none for the norm's epsilon (1e-5)."""
    return {
        "architectures": ["OlmoForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "clip_qkv": None,
        "eos_token_id": 66,
        "hidden_act": "silu",
        "hidden_size": 24,
        "initializer_range": 0.02,
        "intermediate_size": 37,
        "max_position_embeddings": 64,
        "model_type": "olmo",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "pad_token_id": 1,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.40.0.dev0",
        "use_cache": True,
        "vocab_size": 67,
        **keys,
    }


def olmo2(**keys):
    """OLMo-2-1124-7B's keys."""
    return {
        "architectures": ["Olmo2ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "eos_token_id": 66,
        "hidden_act": "silu",
        "hidden_size": 24,
        "initializer_range": 0.02,
        "intermediate_size": 37,
        "max_position_embeddings": 64,
        "model_type": "olmo2",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "pad_token_id": 65,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 500000,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.47.0.dev0",
        "use_cache": True,
        "vocab_size": 67,
        **keys,
    }


def glm(**keys):
    """glm-4-9b-hf's keys."""
    return {
        "architectures": ["GlmForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "eos_token_id": [64, 65, 66],
        "head_dim": 8,
        "hidden_act": "silu",
        "hidden_size": 20,
        "initializer_range": 0.02,
        "intermediate_size": 35,
        "max_position_embeddings": 64,
        "model_type": "glm",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pad_token_id": 64,
        "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1.5625e-07,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.0.dev0",
        "use_cache": True,
        "vocab_size": 67,
        **keys,
    }


def glm4(**keys):
    """GLM-4-9B-0414's keys."""
    return glm(
        architectures=["Glm4ForCausalLM"],
        attention_bias=False,
        model_type="glm4",
        rms_norm_eps=1e-05,
        transformers_version="4.52.0.dev0",
        **keys,
    )


def chatglm(**keys):
    """chatglm3-6b's keys. `num_layers`, `ffn_hidden_size`, `kv_channels` and others have no second name."""
    return {
        "_name_or_path": "THUDM/chatglm3-6b",
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "apply_query_key_layer_scaling": True,
        "apply_residual_connection_post_layernorm": False,
        "architectures": ["ChatGLMModel"],
        "attention_dropout": 0.0,
        "attention_softmax_in_fp32": True,
        "auto_map": {
            "AutoConfig": "configuration_chatglm.ChatGLMConfig",
            "AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration",
            "AutoModelForCausalLM": "modeling_chatglm.ChatGLMForConditionalGeneration",
        },
        "bias_dropout_fusion": True,
        "classifier_dropout": None,
        "eos_token_id": 2,
        "ffn_hidden_size": 35,
        "fp32_residual_connection": False,
        "hidden_dropout": 0.0,
        "hidden_size": 20,
        "kv_channels": 8,
        "layernorm_epsilon": 1e-05,
        "model_type": "chatglm",
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "num_attention_heads": 4,
        "num_layers": 2,
        "original_rope": True,
        "pad_token_id": 0,
        "padded_vocab_size": 72,
        "post_layer_norm": True,
        "rmsnorm": True,
        "seq_length": 64,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.30.2",
        "use_cache": True,
        "vocab_size": 72,
        **keys,
    }


def chatglm2(**keys):
    """chatglm2-6b's keys."""
    return chatglm(
        _name_or_path="THUDM/chatglm2-6b",
        classifier_dropout=GONE,
        transformers_version="4.27.1",
        vocab_size=GONE,
        **keys,
    )


def mixtral(**keys):
    """Mixtral-8x7B-v0.1's keys."""
    return {
        "architectures": ["MixtralForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 16,
        "initializer_range": 0.02,
        "intermediate_size": 19,
        "max_position_embeddings": 64,
        "model_type": "mixtral",
        "num_attention_heads": 4,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "num_local_experts": 5,
        "output_router_logits": False,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.02,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.36.0.dev0",
        "use_cache": True,
        "vocab_size": 67,
        **keys,
    }


def qwen2_moe(**keys):
    """Qwen1.5-MoE-A2.7B's keys."""
    return {
        "architectures": ["Qwen2MoeForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 66,
        "decoder_sparse_step": 1,
        "eos_token_id": 66,
        "hidden_act": "silu",
        "hidden_size": 16,
        "initializer_range": 0.02,
        "intermediate_size": 23,
        "max_position_embeddings": 64,
        "max_window_layers": 1,
        "model_type": "qwen2_moe",
        "moe_intermediate_size": 9,
        "norm_topk_prob": False,
        "num_attention_heads": 4,
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "output_router_logits": False,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 21,
        "sliding_window": 8,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.39.0.dev0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 67,
        **keys,
    }


def qwen3_moe(**keys):
    """Qwen3-30B-A3B's keys."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 65,
        "decoder_sparse_step": 1,
        "eos_token_id": 66,
        "head_dim": 8,
        "hidden_act": "silu",
        "hidden_size": 16,
        "initializer_range": 0.02,
        "intermediate_size": 23,
        "max_position_embeddings": 64,
        "max_window_layers": 2,
        "mlp_only_layers": [],
        "model_type": "qwen3_moe",
        "moe_intermediate_size": 9,
        "norm_topk_prob": True,
        "num_attention_heads": 4,
        "num_experts": 7,
        "num_experts_per_tok": 3,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "output_router_logits": False,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 67,
        **keys,
    }


def mamba(**keys):
    """mamba-130m-hf's keys: the original's and transformers' side by side. There is none for tying (true)."""
    return {
        "architectures": ["MambaForCausalLM"],
        "bos_token_id": 0,
        "conv_kernel": 4,
        "d_inner": 40,
        "d_model": 20,
        "eos_token_id": 0,
        "expand": 2,
        "fused_add_norm": True,
        "hidden_act": "silu",
        "hidden_size": 20,
        "initializer_range": 0.1,
        "intermediate_size": 40,
        "layer_norm_epsilon": 1e-05,
        "model_type": "mamba",
        "n_layer": 2,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "pad_vocab_size_multiple": 8,
        "rescale_prenorm_residual": False,
        "residual_in_fp32": True,
        "rms_norm": True,
        "ssm_cfg": {},
        "state_size": 5,
        "time_step_floor": 0.0001,
        "time_step_init_scheme": "random",
        "time_step_max": 0.1,
        "time_step_min": 0.001,
        "time_step_rank": 3,
        "time_step_scale": 1.0,
        "torch_dtype": "float32",
        "transformers_version": "4.39.0.dev0",
        "use_bias": False,
        "use_cache": True,
        "use_conv_bias": True,
        "vocab_size": 72,
        **keys,
    }


def original_mamba(**keys):
    """mamba-130m's keys, those of the mamba_ssm package: no model type, defaults for all of the state space."""
    return {
        "d_model": 20,
        "fused_add_norm": True,
        "n_layer": 2,
        "pad_vocab_size_multiple": 8,
        "residual_in_fp32": True,
        "rms_norm": True,
        "ssm_cfg": {},
        "vocab_size": 67,
        **keys,
    }


def mamba2(**keys):
    """Mamba-Codestral-7B's keys."""
    return {
        "architectures": ["Mamba2ForCausalLM"],
        "bos_token_id": 0,
        "chunk_size": 256,
        "conv_kernel": 4,
        "eos_token_id": 0,
        "expand": 2,
        "head_dim": 8,
        "hidden_act": "silu",
        "hidden_size": 16,
        "initializer_range": 0.1,
        "intermediate_size": 32,
        "layer_norm_epsilon": 1e-05,
        "model_type": "mamba2",
        "n_groups": 2,
        "norm_before_gate": True,
        "num_heads": 4,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "rescale_prenorm_residual": False,
        "residual_in_fp32": True,
        "rms_norm": True,
        "state_size": 6,
        "tie_word_embeddings": False,
        "time_step_floor": 0.0001,
        "time_step_init_scheme": "random",
        "time_step_limit": [0.0, math.inf],
        "time_step_max": 0.1,
        "time_step_min": 0.001,
        "time_step_rank": 1,
        "time_step_scale": 1.0,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.44.0.dev0",
        "use_bias": False,
        "use_cache": True,
        "use_conv_bias": True,
        "vocab_size": 67,
        **keys,
    }


# ------------------------------------------------------------------------------------------------------------------
# What checkpoints store beside the weights, or under other names. Each takes and returns {name: tensor}.


def without(prefix):
    """Tensor names as saved from the base model, e.g. `decoder.layers...` for `model.decoder.layers...`."""
    return lambda tensors, config: {name.removeprefix(prefix): t for name, t in tensors.items()}


def stored_head(embedding):
    """A tied head that is stored all the same, with the embedding's values."""
    return lambda tensors, config: {**tensors, "lm_head.weight": tensors[embedding].clone()}


def causal_masks(prefix, dtype, masked_bias=False):
    """GPT-2's causal mask and its `-10000`, which old versions of transformers saved as weights."""

    def plant(tensors, config):
        n = config.n_positions
        for i in range(config.n_layer):
            tensors[f"{prefix}h.{i}.attn.bias"] = torch.ones(n, n).tril().view(1, 1, n, n).to(dtype)
            if masked_bias:
                tensors[f"{prefix}h.{i}.attn.masked_bias"] = torch.tensor(-10000.0)
        return tensors

    return plant


def inverse_frequencies(tensors, config):
    """RoPE's frequencies, unscaled, which LLaMA checkpoints up to 2023 carry. To be ignored."""
    dim = config.hidden_size // config.num_attention_heads
    for i in range(config.num_hidden_layers):
        inverse = 1.0 / (10000.0 ** (torch.arange(0, dim, 2).float() / dim))
        tensors[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = inverse
    return tensors


def masks(prefix, layers, n, dtype=torch.uint8):
    """A causal mask for each layer, and the number that it puts in place of a score."""
    mask = torch.ones(n, n).tril().view(1, 1, n, n).to(dtype)
    names = [prefix.format(i) for i in range(layers)]
    return {f"{p}.bias": mask.clone() for p in names} | {f"{p}.masked_bias": torch.tensor(-1e9) for p in names}


def neox_names(tensors, config):
    """The Hub's name of the head."""
    return {"embed_out.weight" if name == "lm_head.weight" else name: t for name, t in tensors.items()}


def neox_buffers(tensors, config):
    """What Pythia's files store beside the weights."""
    layer = "gpt_neox.layers.{}.attention"
    n = config.max_position_embeddings
    for i in range(config.num_hidden_layers):
        name = layer.format(i) + ".rotary_emb.inv_freq"
        tensors[name] = 1.0 / (10000.0 ** (torch.arange(0, 4, 2).float() / 4))
    return tensors | masks(layer, config.num_hidden_layers, n)


def neo_buffers(tensors, config):
    """What GPT-Neo's files store beside the weights (a local layer's mask is narrower there)."""
    return tensors | masks("transformer.h.{}.attn.attention", config.num_layers, config.max_position_embeddings)


def gemma3_vision_names(tensors, config):
    """The Hub's names, all of which transformers now keeps below one `model.`"""
    places = {
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.multi_modal_projector.": "multi_modal_projector.",
    }
    return {places[p] + name.removeprefix(p): t for name, t in tensors.items() for p in places if name.startswith(p)}


def experts(block, gate, up, down):
    """A tensor for each expert's linear. transformers 5 holds them stacked: gate and up as one, and down."""

    def split(tensors, config):
        out = {}
        for name, t in tensors.items():
            prefix, stacked, kind = name.partition(".mlp.experts.")
            if not stacked:
                out[name.replace(".mlp.gate.", f".{block}.gate.")] = t
                continue
            for i, expert in enumerate(t):
                names = (gate, up) if kind == "gate_up_proj" else (down,)
                for linear, part in zip(names, expert.chunk(len(names)), strict=True):
                    out[f"{prefix}.{block}.experts.{i}.{linear}.weight"] = part.clone()
        return out

    return split


def chatglm_names(tensors, config):
    """From `glm`'s names, and its q, k and v in three, to ChatGLM's; with the frequencies that its files store."""
    out = {}
    for name, t in tensors.items():
        if ".q_proj." in name:
            parts = [tensors[name.replace(".q_proj.", f".{p}_proj.")] for p in "qkv"]
            name, t = name.replace("self_attn.q_proj", "self_attention.query_key_value"), torch.cat(parts)
        elif ".k_proj." in name or ".v_proj." in name:
            continue
        for glm, chat in GLM_NAMES.items():
            name = name.replace(glm, chat)
        out[name] = t
    half = config.head_dim // 2
    out["transformer.rotary_pos_emb.inv_freq"] = 1.0 / (10000.0 ** (torch.arange(0, half, 2).float() / half))
    return out


GLM_NAMES = {
    "model.layers.": "transformer.encoder.layers.",
    "model.embed_tokens.": "transformer.embedding.word_embeddings.",
    "model.norm.": "transformer.encoder.final_layernorm.",
    "lm_head.": "transformer.output_layer.",
    "self_attn.o_proj.": "self_attention.dense.",
    "mlp.gate_up_proj.": "mlp.dense_h_to_4h.",
    "mlp.down_proj.": "mlp.dense_4h_to_h.",
}


def original_mamba_names(tensors, config):
    """mamba_ssm's name of the embedding, and the tied head, which its files store."""
    out = {name.replace(".embeddings.", ".embedding."): t for name, t in tensors.items()}
    return {**out, "lm_head.weight": tensors["backbone.embeddings.weight"].clone()}


# Of all the above, what may be left over on loading.
BUFFERS = (
    "attn.bias",
    "attn.masked_bias",
    "attention.bias",
    "attention.masked_bias",
    "rotary_emb.inv_freq",
)


# ------------------------------------------------------------------------------------------------------------------
# What transformers is given where it does not know the Hub's keys, and what is undone where it is wrong.


def su_is_longrope(config):
    return {**config, "rope_scaling": {**config["rope_scaling"], "type": "longrope"}}


def new_falcon(config):
    """The keys from before transformers had Falcon. `RefinedWeb` is the new decoder, and says so by its name."""
    new = {k: v for k, v in config.items() if k not in ("auto_map", "n_head", "n_head_kv", "n_layer")}
    new |= {"model_type": "falcon", "num_attention_heads": config["n_head"], "num_hidden_layers": config["n_layer"]}
    if config["model_type"] == "RefinedWeb":
        new |= {"new_decoder_architecture": True, "num_kv_heads": config["n_head_kv"]}
    return new


def alibi_once(model):
    """transformers 5 puts Falcon's ALiBi into the mask as well, and its eager attention adds both.

    Its sdpa attention adds it once, as do transformers 4.38 and the checkpoints' own code.
    """

    def bare(_, arguments, keys):
        mask = keys["attention_mask"]
        least = torch.finfo(mask.dtype).min
        return arguments, keys | {"attention_mask": torch.where(mask == least, mask, 0)}

    for layer in model.transformer.h:
        layer.self_attention.register_forward_pre_hook(bare, with_kwargs=True)


def clip_as_a_float(config):
    """The Hub's file says 6; transformers 5.24 wants 6.0 and reads nothing else."""
    attention = config["attn_config"]
    return {**config, "attn_config": {**attention, "clip_qkv": float(attention["clip_qkv"])}}


def alibi_bias_max(model):
    mpt = model.transformer
    own, most = mpt.build_mpt_alibi_tensor, model.config.attn_config.alibi_bias_max
    mpt.build_mpt_alibi_tensor = lambda heads, n, device=None: own(heads, n, most, device)


def glm_for_chatglm(config):
    """The same model among those that transformers has."""
    ratio = float(config.get("rope_ratio", 1))
    rope = {"rope_theta": 10000.0 * ratio}
    if divides_positions(config):
        rope = {"rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": ratio}}
    return {
        "attention_bias": config["add_qkv_bias"],
        "head_dim": config["kv_channels"],
        "hidden_act": "silu",
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["ffn_hidden_size"],
        "max_position_embeddings": config["seq_length"],
        "model_type": "glm",
        "num_attention_heads": config["num_attention_heads"],
        "num_hidden_layers": config["num_layers"],
        "num_key_value_heads": config["multi_query_group_num"],
        "pad_token_id": 0,
        "partial_rotary_factor": 0.5,
        "rms_norm_eps": config["layernorm_epsilon"],
        "tie_word_embeddings": False,
        "vocab_size": config["padded_vocab_size"],
        **rope,
    }


def glm_names(tensors, config):
    out = {}
    q, kv = (config[n] * config["kv_channels"] for n in ("num_attention_heads", "multi_query_group_num"))
    for name, t in tensors.items():
        for glm, chat in GLM_NAMES.items():
            name = name.replace(chat, glm)
        if ".query_key_value." in name:
            name = name.replace("self_attention.query_key_value", "self_attn.{}_proj")
            out |= {name.format(p): part.clone() for p, part in zip("qkv", t.split([q, kv, kv]), strict=True)}
        elif not name.endswith("inv_freq"):
            out[name] = t
    return out


def padded(config):
    size, multiple = config["vocab_size"], config["pad_vocab_size_multiple"]
    return size + -size % multiple


def mamba_for_original(config):
    state = config["ssm_cfg"]
    return {
        "conv_kernel": state.get("d_conv", 4),
        "expand": state.get("expand", 2),
        "hidden_size": config["d_model"],
        "model_type": "mamba",
        "num_hidden_layers": config["n_layer"],
        "residual_in_fp32": config["residual_in_fp32"],
        "state_size": state.get("d_state", 16),
        "vocab_size": padded(config),
    }


def mamba2_for_original(config):
    state = config["ssm_cfg"]
    width, head = 2 * config["d_model"], state.get("headdim", 64)
    return {
        **mamba_for_original(config),
        "head_dim": head,
        "model_type": "mamba2",
        "n_groups": state.get("ngroups", 1),
        "num_heads": width // head,
        "state_size": state.get("d_state", 128),
        "tie_word_embeddings": config["tie_embeddings"],
    }


def mamba_names(tensors, config):
    out = {name.replace(".embedding.", ".embeddings."): t for name, t in tensors.items()}
    del out["lm_head.weight"]
    return out


# ------------------------------------------------------------------------------------------------------------------
# The fixtures.

# about           what the fixture is there for (printed in fixtures/README.md)
# config          config.json
# n               tokens, 26 unless told
# vocab           tokens are below this, where the vocabulary is padded
# store           dtype of the stored weights
# shards          files that the weights are spread over
# layout          changes of names and planted buffers, applied in order to what transformers would save
# rewrite         config.json as this version of transformers spells it
# stand_in        what transformers is given for config.json, where it does not know the Hub's keys
# stand_in_names  what it is given for the tensors, where it does not know the Hub's names
# mend            undoes, on the model, what transformers gets wrong
# cached_differs  one token at a time is not one pass, by design
# same            overrides of the config that must not change a bit of the logits
# mistakes        overrides that must change them

LLAMA3 = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 32,
    "rope_type": "llama3",
}
YARN = {"factor": 4.0, "finetuned": True, "original_max_position_embeddings": 16, "type": "yarn"}
YARN_KEYS = {
    "attention_factor": 1.3,
    "beta_fast": 0.5,
    "beta_slow": 0.05,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_type": "yarn",
}

VARIANTS = {
    "llama/mha-untied": dict(
        about="Llama-1's keys: no `num_key_value_heads`, no `rope_theta`; an epsilon that matters",
        config=llama(num_key_value_heads=GONE, rms_norm_eps=1e-3),
        same=[{"num_key_value_heads": 4, "rope_theta": 10000.0}],
        mistakes=[{"rms_norm_eps": 1e-5}, {"rope_theta": 500000.0}, {"hidden_act": "gelu"}],
    ),
    "llama/gqa-tied": dict(
        about="six query heads on two key heads; no `lm_head` stored",
        config=llama(num_attention_heads=6, num_key_value_heads=2, tie_word_embeddings=True, vocab_size=101),
        n=24,
    ),
    "llama/wide-heads": dict(
        about="`head_dim` x heads is not the hidden size; `attention_bias` and `mlp_bias`",
        config=llama(head_dim=10, num_key_value_heads=2, attention_bias=True, mlp_bias=True, intermediate_size=35),
    ),
    "llama/linear-rope": dict(
        about="Vicuna-16k: `rope_scaling` linear 4; text longer than `max_position_embeddings`; stored `inv_freq`",
        config=llama(
            intermediate_size=35,
            max_position_embeddings=10,
            pad_token_id=0,
            rope_scaling={"factor": 4.0, "type": "linear"},
            rope_theta=10000.0,
        ),
        n=40,
        layout=[inverse_frequencies],
        same=[
            {
                "rope_scaling": GONE,
                "rope_theta": GONE,
                "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
            }
        ],
        mistakes=[{"rope_scaling": None}],
    ),
    "llama/new-rope-keys": dict(
        about="config.json as transformers 5 writes it: `rope_parameters` with theta 500000, `dtype`",
        config=llama(num_key_value_heads=2, rope_theta=500000.0, rope_scaling=GONE, intermediate_size=37),
        rewrite=True,
        same=[{"rope_parameters": GONE, "rope_theta": 500000.0}],
        mistakes=[{"rope_parameters": GONE}],
    ),
    "llama/sharded-f16": dict(
        about="weights in f16, in two shards with an index; three layers",
        config=llama(torch_dtype="float16", num_hidden_layers=3, num_key_value_heads=1),
        store=torch.float16,
        shards=2,
    ),
    "llama/bf16": dict(
        about="weights in bf16; three layers",
        config=llama(torch_dtype="bfloat16", num_hidden_layers=3, num_key_value_heads=2),
        store=torch.bfloat16,
    ),
    "llama/llama3": dict(
        about="Llama 3.1: `rope_scaling` llama3, dimensions in each of its three ranges; beyond the original length",
        config=llama(
            bos_token_id=64,
            eos_token_id=[64, 65, 66],
            head_dim=24,
            intermediate_size=29,
            num_attention_heads=2,
            num_key_value_heads=1,
            mlp_bias=False,
            rope_scaling=LLAMA3,
            rope_theta=500000.0,
            tie_word_embeddings=True,
            torch_dtype="bfloat16",
        ),
        n=40,
        store=torch.bfloat16,
        same=[{"rope_scaling": GONE, "rope_theta": GONE, "rope_parameters": {**LLAMA3, "rope_theta": 500000.0}}],
        mistakes=[
            {"rope_scaling": None},
            {"rope_scaling": {**LLAMA3, "factor": 7.0}},
            {"rope_scaling": {**LLAMA3, "low_freq_factor": 1.2}},
            {"rope_scaling": {**LLAMA3, "high_freq_factor": 4.2}},
            {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 64}},
            {"rope_scaling": {**LLAMA3, "rope_type": "linear"}},
        ],
    ),
    "llama/yarn": dict(
        about="Yarn-Llama-2: `rope_scaling` yarn by its old key `type`, `attention_factor` from the factor alone",
        config=llama(
            head_dim=24,
            intermediate_size=29,
            num_attention_heads=2,
            num_key_value_heads=1,
            rope_scaling=YARN,
            max_position_embeddings=64,
        ),
        n=40,
        store=torch.bfloat16,
        same=[
            {"rope_scaling": {**YARN, "attention_factor": 0.1 * math.log(4) + 1}},
            {"rope_scaling": {**YARN, "beta_fast": 32, "beta_slow": 1}},
        ],
        mistakes=[
            {"rope_scaling": None},
            {"rope_scaling": {**YARN, "attention_factor": 1.0}},
            {"rope_scaling": {**YARN, "type": "linear"}},
            {"rope_scaling": {**YARN, "original_max_position_embeddings": 64}},
        ],
    ),
    "llama/yarn-keys": dict(
        about="all of YaRN's keys: `attention_factor`, `beta_fast`, `beta_slow`; a ramp over several dimensions",
        config=llama(
            head_dim=24,
            intermediate_size=29,
            num_attention_heads=2,
            num_key_value_heads=1,
            rope_scaling=YARN_KEYS,
            max_position_embeddings=64,
        ),
        n=40,
        store=torch.bfloat16,
        mistakes=[
            {"rope_scaling": {k: v for k, v in YARN_KEYS.items() if k != left}}
            for left in ("attention_factor", "beta_fast", "beta_slow")
        ],
    ),
    "llama/longchat": dict(
        about="longchat-16k: `rope_condense_ratio`, which says nothing that `rope_scaling` linear 8 does not",
        config=llama(
            intermediate_size=35,
            max_position_embeddings=10,
            pad_token_id=0,
            rms_norm_eps=1e-06,
            rope_condense_ratio=8,
            rope_scaling={"factor": 8.0, "type": "linear"},
        ),
        n=40,
        same=[{"rope_condense_ratio": GONE}],
        mistakes=[{"rope_scaling": None}, {"rope_scaling": {"factor": 64.0, "type": "linear"}}],
    ),
    "llama/smollm": dict(
        about="SmolLM2-135M: nine query heads on three, tied; keys that mean nothing (`is_llama_config`)",
        config=llama(
            bos_token_id=0,
            eos_token_id=0,
            hidden_size=36,
            intermediate_size=37,
            is_llama_config=True,
            num_attention_heads=9,
            num_key_value_heads=3,
            pad_token_id=2,
            rope_interleaved=False,
            rope_theta=100000,
            tie_word_embeddings=True,
            torch_dtype="bfloat16",
        ),
        n=24,
        store=torch.bfloat16,
        mistakes=[{"rope_theta": 10000.0}],
    ),
    "mistral/window": dict(
        about="v0.1: a window of 8 tokens, the token itself among them; grouped heads",
        config=mistral(),
        mistakes=[{"sliding_window": None}, {"sliding_window": 7}, {"sliding_window": 9}],
    ),
    "mistral/no-window": dict(
        about="v0.2 and Nemo: `sliding_window` null, theta 1e6, explicit `head_dim` beside the hidden size",
        config=mistral(sliding_window=None, rope_theta=1000000.0, head_dim=8, rms_norm_eps=1e-3),
        mistakes=[{"sliding_window": 8}, {"rope_theta": 10000.0}, {"rms_norm_eps": 1e-6}],
    ),
    "opt/125m": dict(
        about="pre-norm, biases everywhere, learned positions with an offset of two; text as long as the context",
        config=opt(),
        n=40,
        mistakes=[{"do_layer_norm_before": False}, {"_remove_final_layer_norm": True}],
    ),
    "opt/350m": dict(
        about="post-norm, `project_in` and `project_out`, no final norm",
        config=opt(do_layer_norm_before=False, hidden_size=20, word_embed_proj_dim=14),
        mistakes=[{"do_layer_norm_before": True}],
    ),
    "opt/no-bias": dict(
        about="`enable_bias` false and `layer_norm_elementwise_affine` false: linears and norms without parameters",
        config=opt(enable_bias=False, layer_norm_elementwise_affine=False, hidden_size=20, word_embed_proj_dim=20),
    ),
    "opt/gelu": dict(
        about="Galactica: `activation_function` gelu (the erf one)",
        config=opt(
            activation_function="gelu",
            enable_bias=True,
            layer_norm_elementwise_affine=True,
            learned_embeddings=True,
            scale_embeddings=False,
            bos_token_id=0,
            hidden_size=20,
            word_embed_proj_dim=20,
        ),
        mistakes=[{"activation_function": "relu"}, {"activation_function": "gelu_new"}],
    ),
    "opt/old-names": dict(
        about="names without `model.`, and the tied head stored as `lm_head.weight` too",
        config=opt(hidden_size=20, word_embed_proj_dim=20),
        layout=[stored_head("model.decoder.embed_tokens.weight"), without("model.")],
    ),
    "bloom/heads-8": dict(
        about="ALiBi with a power of two heads; heads of three dimensions",
        config=bloom(),
        mistakes=[{"apply_residual_connection_post_layernorm": True}],
    ),
    "bloom/heads-6": dict(
        about="ALiBi with six heads: four slopes, and two from the next power of two; an epsilon that matters",
        config=bloom(n_head=6, hidden_size=18, layer_norm_epsilon=1e-3),
        mistakes=[{"layer_norm_epsilon": 1e-5}],
    ),
    "bloom/post-residual": dict(
        about="`apply_residual_connection_post_layernorm`: the residual is what the norm gives",
        config=bloom(apply_residual_connection_post_layernorm=True, n_head=4, hidden_size=20),
        mistakes=[{"apply_residual_connection_post_layernorm": False}],
    ),
    "bloom/old-keys": dict(
        about="bloom-560m's file: `n_embed`, `num_attention_heads`; names without `transformer.`",
        config=bloom(hidden_size=GONE, n_head=GONE, n_embed=20, num_attention_heads=4),
        layout=[without("transformer.")],
        same=[{"n_embed": GONE, "num_attention_heads": GONE, "hidden_size": 20, "n_head": 4}],
    ),
    "gpt2/plain": dict(
        about="OpenAI's file: names without `transformer.`, causal masks stored as `h.N.attn.bias`",
        config=gpt2(n_ctx=28, n_positions=28, n_embd=20),
        n=28,
        layout=[without("transformer."), causal_masks("", torch.float32)],
        mistakes=[{"activation_function": "gelu"}, {"scale_attn_by_inverse_layer_idx": True}],
    ),
    "gpt2/prefixed": dict(
        about="as `save_pretrained` writes it; masks stored as booleans and a scalar `masked_bias`",
        config=gpt2(tie_word_embeddings=True, torch_dtype="float32", transformers_version="4.38.1"),
        layout=[causal_masks("transformer.", torch.bool, masked_bias=True)],
    ),
    "gpt2/scaled": dict(
        about="`scale_attn_by_inverse_layer_idx`, `n_inner`, relu; three layers; an epsilon that matters",
        config=gpt2(
            scale_attn_by_inverse_layer_idx=True,
            n_inner=35,
            n_embd=20,
            activation_function="relu",
            n_layer=3,
            layer_norm_epsilon=1e-3,
        ),
        mistakes=[
            {"scale_attn_by_inverse_layer_idx": False},
            {"activation_function": "gelu_new"},
            {"layer_norm_epsilon": 1e-5},
        ],
    ),
    "gpt2/unscaled": dict(
        about="`scale_attn_weights` false: no 1/sqrt(head_dim)",
        config=gpt2(scale_attn_weights=False, n_embd=20),
        mistakes=[{"scale_attn_weights": True}],
    ),
    "gpt2/untied": dict(
        about="`tie_word_embeddings` false: `lm_head.weight` stored without the prefix",
        config=gpt2(tie_word_embeddings=False, n_embd=20, vocab_size=101, bos_token_id=100, eos_token_id=100),
        n=24,
    ),
    "qwen2/plain": dict(
        about="Qwen2.5-0.5B: biases on q, k, v, large on k, none on o; tied; a window that is switched off",
        config=qwen2(),
        same=[{"sliding_window": None}, {"use_sliding_window": GONE, "use_mrope": GONE, "max_window_layers": GONE}],
        mistakes=[{"rope_theta": 10000.0}, {"use_sliding_window": True}],
    ),
    "qwen2/window": dict(
        about="`use_sliding_window`: layers from `max_window_layers` on see 6 tokens; untied",
        config=qwen2(
            hidden_size=24,
            intermediate_size=31,
            max_window_layers=1,
            num_attention_heads=4,
            num_hidden_layers=3,
            num_key_value_heads=2,
            rms_norm_eps=1e-3,
            sliding_window=6,
            tie_word_embeddings=False,
            use_sliding_window=True,
        ),
        store=torch.bfloat16,
        same=[{"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}],
        mistakes=[
            {"max_window_layers": 0},
            {"max_window_layers": 2},
            {"max_window_layers": 3},
            {"sliding_window": 5},
            {"sliding_window": 7},
            {"use_sliding_window": False},
            {"rms_norm_eps": 1e-6},
        ],
    ),
    "qwen3/plain": dict(
        about="Qwen3-0.6B: q and k normalised head by head before RoPE; heads wider than the hidden size; tied",
        config=qwen3(),
        mistakes=[{"rope_theta": 10000}],
    ),
    "qwen3/untied": dict(
        about="Qwen3-8B: untied; one key head; an epsilon that matters, in the heads' norms too",
        config=qwen3(num_key_value_heads=1, rms_norm_eps=1e-3, tie_word_embeddings=False, vocab_size=71),
        mistakes=[{"rms_norm_eps": 1e-6}],
    ),
    "gemma/2b": dict(
        about="gemma-2b: norms add one, embeddings times sqrt(hidden), one key head; `hidden_act` gelu means tanh",
        config=gemma(),
        same=[{"hidden_act": "gelu_pytorch_tanh"}, {"tie_word_embeddings": True}],
        # `gelu_python` is transformers' other name for the erf one, which it does not take for a slip.
        mistakes=[{"hidden_act": "gelu_python"}, {"rope_theta": 20000.0}],
    ),
    "gemma/7b": dict(
        about="gemma-7b: as many key heads as query heads, wider than the hidden size; `hidden_activation`",
        config=gemma(
            head_dim=12,
            hidden_act="gelu_pytorch_tanh",
            hidden_activation="gelu_pytorch_tanh",
            hidden_size=18,
            num_key_value_heads=3,
            rms_norm_eps=1e-3,
            tie_word_embeddings=True,
            torch_dtype="bfloat16",
        ),
        same=[{"hidden_activation": GONE}, {"hidden_activation": None, "hidden_act": "gelu"}],
        mistakes=[{"rms_norm_eps": 1e-6}],
    ),
    "gemma2/2b": dict(
        about="gemma-2: norms before and after each branch, soft caps on scores and logits, a window in layers 0, 2",
        config=gemma2(),
        same=[{"tie_word_embeddings": True, "hidden_act": GONE}],
        mistakes=[
            {"attn_logit_softcapping": None},
            {"final_logit_softcapping": None},
            {"query_pre_attn_scalar": 10},
            {"sliding_window": 7},
            {"sliding_window": 9},
            {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
            {"layer_types": ["full_attention"] * 3},
            {"hidden_activation": "gelu"},
        ],
    ),
    "gemma2/no-caps": dict(
        about="soft caps that are null; an epsilon that matters",
        config=gemma2(
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            num_hidden_layers=2,
            query_pre_attn_scalar=12,
            rms_norm_eps=1e-3,
        ),
        mistakes=[
            {"attn_logit_softcapping": 50.0},
            {"final_logit_softcapping": 30.0},
            {"rms_norm_eps": 1e-6},
        ],
    ),
    "gemma3/text": dict(
        about="gemma-3: q and k normalised; layer 1 global, with its own theta and scaling; 0 and 2 local",
        config=gemma3(),
        mistakes=[
            {"rope_local_base_freq": 1000000},
            {"rope_theta": 10000},
            {"rope_scaling": None},
            {"sliding_window_pattern": 6},
            {"sliding_window_pattern": 3},
            {"sliding_window": 7},
            {"sliding_window": 9},
            {"query_pre_attn_scalar": 10},
            {"hidden_activation": "gelu"},
        ],
    ),
    "gemma3/1b": dict(
        about="gemma-3-1b: no scaling; a pattern of three over four layers",
        config=gemma3(
            head_dim=8, num_hidden_layers=4, rms_norm_eps=1e-3, rope_scaling=None, sliding_window_pattern=3
        ),
        store=torch.bfloat16,
        mistakes=[
            {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
            {"sliding_window_pattern": 4},
            {"rms_norm_eps": 1e-6},
        ],
    ),
    "gemma3/new-keys": dict(
        about="config.json as transformers 5 writes it: `rope_parameters` for each kind of layer, `layer_types`",
        config=gemma3(sliding_window_pattern=3),
        rewrite=True,
    ),
    "gemma3/vision": dict(
        about="gemma-3-4b: `text_config`, `language_model.model.` before the names, a vision tower to be left alone",
        config=gemma3_vision(),
        store=torch.bfloat16,
        layout=[gemma3_vision_names],
        same=[
            {
                "text_config": {
                    "num_attention_heads": 8,
                    "num_key_value_heads": 4,
                    "query_pre_attn_scalar": 256,
                    "rms_norm_eps": 1e-6,
                    "rope_local_base_freq": 10000.0,
                    "rope_theta": 1000000.0,
                    "sliding_window_pattern": 6,
                    "hidden_activation": "gelu_pytorch_tanh",
                }
            }
        ],
        mistakes=[
            {"text_config": {"rope_scaling": None}},
            {"text_config": {"rope_theta": 10000.0}},
            {"text_config": {"rope_local_base_freq": 1000000.0}},
            {"text_config": {"sliding_window_pattern": 7}},
            {"text_config": {"query_pre_attn_scalar": 4}},
            {"text_config": {"sliding_window": 9}},
        ],
    ),
    "gemma3/vision-renamed": dict(
        about="gemma-3 as newer versions of transformers save it: `model.language_model.` before the names",
        config=gemma3_vision(num_hidden_layers=3, sliding_window_pattern=2),
        store=torch.bfloat16,
    ),
    "stablelm/3b": dict(
        about="stablelm-zephyr-3b: LayerNorms with bias, RoPE on a quarter of each head, no biases in linears",
        config=stablelm(hidden_size=32, intermediate_size=29, num_attention_heads=2, num_key_value_heads=2),
        store=torch.bfloat16,
        same=[{"partial_rotary_factor": GONE, "qk_layernorm": False, "use_parallel_residual": False}],
        mistakes=[{"partial_rotary_factor": 0.5}, {"partial_rotary_factor": 1.0}, {"rope_theta": 100}],
    ),
    "stablelm/qkv-bias": dict(
        about="stablelm-2-1.6b: biases on q, k, v; four dimensions of sixteen turn; an epsilon that matters",
        config=stablelm(
            hidden_size=32,
            intermediate_size=29,
            layer_norm_eps=1e-3,
            num_attention_heads=2,
            num_key_value_heads=2,
            use_qkv_bias=True,
        ),
        store=torch.bfloat16,
        mistakes=[{"layer_norm_eps": 1e-5}, {"use_qkv_bias": False}],
    ),
    "stablelm/12b": dict(
        about="stablelm-2-12b: a norm without bias for each head of q and k; parallel branches; grouped heads",
        config=stablelm(
            hidden_size=32,
            intermediate_size=29,
            num_attention_heads=4,
            num_key_value_heads=2,
            qk_layernorm=True,
            use_parallel_residual=True,
        ),
        store=torch.bfloat16,
        mistakes=[{"qk_layernorm": False}, {"use_parallel_residual": False}],
    ),
    "phi/1_5": dict(
        about="phi-1.5: one norm for both branches, biases everywhere and on the head, RoPE on half of each head",
        config=phi(),
        same=[{"partial_rotary_factor": GONE, "num_key_value_heads": 3}],
        mistakes=[{"partial_rotary_factor": 1.0}, {"hidden_act": "gelu"}, {"rope_theta": 100.0}],
    ),
    "phi/2": dict(
        about="phi-2: `partial_rotary_factor` 0.4, four dimensions of ten; grouped heads; an epsilon that matters",
        config=phi(
            bos_token_id=66,
            eos_token_id=66,
            hidden_size=20,
            layer_norm_eps=1e-3,
            num_attention_heads=2,
            num_key_value_heads=1,
            partial_rotary_factor=0.4,
        ),
        mistakes=[{"partial_rotary_factor": 0.2}, {"layer_norm_eps": 1e-5}],
    ),
    "phi/qk-layernorm": dict(
        about="`qk_layernorm`: one LayerNorm, with bias, for all heads of q, and one for k",
        config=phi(num_attention_heads=3, qk_layernorm=True),
        mistakes=[{"qk_layernorm": False}],
    ),
    "phi3/mini-4k": dict(
        about="Phi-3-mini: q, k and v in one tensor, gate and up in one; a window of 7 tokens; `auto_map`",
        config=phi3(),
        mistakes=[{"sliding_window": None}, {"sliding_window": 6}, {"sliding_window": 8}, {"rope_theta": 500.0}],
    ),
    "phi3/longrope": dict(
        about="Phi-3.5-mini-128k: a text longer than the original length, so `long_factor` from its first token on",
        config=phi3_long(),
        cached_differs=True,
        mistakes=[
            {"rope_scaling": None},
            {"original_max_position_embeddings": 26, "max_position_embeddings": 104},
            {"max_position_embeddings": 16},
            {"max_position_embeddings": 128},
        ],
    ),
    "phi3/longrope-short": dict(
        about="the same, a text as long as the original length: `short_factor`, and the attention factor all the same",
        config=phi3_long(),
        n=16,
        mistakes=[{"rope_scaling": None}, {"max_position_embeddings": 16}, {"original_max_position_embeddings": 15}],
    ),
    "phi3/su": dict(
        about="Phi-3-mini-128k as first published: `type` su for longrope; grouped heads; an epsilon that matters",
        config=phi3_long("su", num_key_value_heads=1, rms_norm_eps=1e-3),
        # transformers 4 and the checkpoint's own code take the one for the other; 5.24 means to, and fails first.
        stand_in=su_is_longrope,
        cached_differs=True,
        mistakes=[{"rms_norm_eps": 1e-5}, {"rope_scaling": None}],
    ),
    "phi3/mini-4": dict(
        about="Phi-4-mini: tied; RoPE on three quarters of each head; longrope within the original length",
        config=phi3(
            max_position_embeddings=64,
            num_key_value_heads=1,
            original_max_position_embeddings=32,
            partial_rotary_factor=0.75,
            rope_scaling={"long_factor": [1.0, 3.0, 9.0], "short_factor": [1.0, 1.2, 1.5], "type": "longrope"},
            sliding_window=262144,
            tie_word_embeddings=True,
        ),
        mistakes=[{"rope_scaling": None}],
    ),
    "falcon/7b": dict(
        about="falcon-7b: one key head, after the query heads in one tensor; both branches on one norm; no biases",
        config=falcon(),
        same=[{"tie_word_embeddings": True, "rope_theta": 10000.0, "ffn_hidden_size": 72}],
        mistakes=[{"parallel_attn": False}, {"activation": "gelu_new"}, {"rope_theta": 500.0}],
    ),
    "falcon/40b": dict(
        about="falcon-40b: q, k, v in groups, a norm for each of the parallel branches; the tied head stored too",
        config=falcon(
            hidden_size=24,
            layer_norm_epsilon=1e-3,
            new_decoder_architecture=True,
            num_attention_heads=6,
            num_kv_heads=2,
        ),
        store=torch.bfloat16,
        layout=[stored_head("transformer.word_embeddings.weight")],
        same=[{"num_ln_in_parallel_attn": 2}, {"multi_query": False}],
        mistakes=[{"layer_norm_epsilon": 1e-5}],
    ),
    "falcon/11b": dict(
        about="falcon-11B: grouped heads with one norm for both branches; an MLP of its own width; untied",
        config=falcon(
            activation="gelu",
            ff_factor=4,
            ffn_hidden_size=37,
            hidden_size=24,
            max_position_embeddings=64,
            new_decoder_architecture=True,
            num_attention_heads=6,
            num_kv_heads=2,
            num_ln_in_parallel_attn=1,
            rope_scaling=None,
            rope_theta=500042.0,
            tie_word_embeddings=False,
        ),
        mistakes=[{"rope_theta": 10000.0}],
    ),
    "falcon/rw": dict(
        about="falcon-rw-1b: ALiBi rounded to bf16, scaled like the scores; q, k, v head by head; biases; sequential",
        config=falcon(
            alibi=True, bias=True, hidden_size=24, multi_query=False, num_attention_heads=12, parallel_attn=False
        ),
        store=torch.bfloat16,
        mend=alibi_once,
        n=40,
        mistakes=[{"alibi": False}, {"bias": False}],
    ),
    "falcon/rw-heads-4": dict(
        about="ALiBi with a power of two heads; parallel branches; no biases",
        config=falcon(alibi=True, multi_query=False, num_attention_heads=4, hidden_size=24),
        store=torch.bfloat16,
        mend=alibi_once,
        mistakes=[{"alibi": False}, {"parallel_attn": False}],
    ),
    "falcon/old-7b": dict(
        about="falcon-7b as first published: `model_type` RefinedWebModel, `n_head`, `n_layer`",
        config=old_falcon(),
        stand_in=new_falcon,
    ),
    "falcon/old-40b": dict(
        about="falcon-40b as first published: `model_type` RefinedWeb, which is all that says it is the new decoder",
        config={
            **old_falcon(),
            **{"hidden_size": 24, "model_type": "RefinedWeb", "n_head": 6, "n_head_kv": 2},
            "multi_query": GONE,
        },
        store=torch.bfloat16,
        stand_in=new_falcon,
        layout=[stored_head("transformer.word_embeddings.weight")],
    ),
    "falcon/old-rw": dict(
        about="falcon-rw-1b as first published: RefinedWebModel with ALiBi, biases and a head for each key",
        config={**old_falcon(), "alibi": True, "bias": True, "multi_query": False, "parallel_attn": False},
        stand_in=new_falcon,
        mend=alibi_once,
    ),
    "gpt_neox/pythia": dict(
        about="Pythia: parallel branches on a norm each, RoPE on a quarter of each head; masks and `inv_freq` stored",
        config=gpt_neox(hidden_size=32, intermediate_size=29, num_attention_heads=2),
        n=28,
        store=torch.float16,
        layout=[neox_names, neox_buffers],
        same=[{"use_parallel_residual": GONE, "attention_bias": True}],
        mistakes=[
            {"use_parallel_residual": False},
            {"rotary_pct": 1.0},
            {"rotary_pct": 0.5},
            {"rotary_emb_base": 100},
            {"hidden_act": "gelu_new"},
        ],
    ),
    "gpt_neox/sequential": dict(
        about="RedPajama-INCITE-3B: `use_parallel_residual` false, RoPE on whole heads; an epsilon that matters",
        config=gpt_neox(layer_norm_eps=1e-3, rotary_pct=1.0, use_parallel_residual=False),
        layout=[neox_names],
        mistakes=[{"use_parallel_residual": True}, {"layer_norm_eps": 1e-5}, {"rotary_pct": 0.25}],
    ),
    "gpt_neox/no-bias": dict(
        about="gpt-neox-20b's `hidden_act` gelu_fast; `attention_bias` false, which takes the output's bias too",
        config=gpt_neox(attention_bias=False, hidden_act="gelu_fast", rotary_pct=0.5),
        layout=[neox_names],
        mistakes=[{"hidden_act": "gelu"}],
    ),
    "gpt_neox/tied": dict(
        about="`tie_word_embeddings`: no `embed_out` stored",
        config=gpt_neox(tie_word_embeddings=True, rotary_pct=0.5),
    ),
    "gpt_neo/125m": dict(
        about="GPT-Neo: scores are not scaled, layer 1 sees 8 tokens; masks stored; the MLP's width by default",
        config=gpt_neo(),
        layout=[neo_buffers],
        same=[{"intermediate_size": 64}, {"attention_layers": GONE}],
        mistakes=[
            {"attention_layers": ["global", "global"]},
            {"attention_layers": ["local", "global"]},
            {"attention_layers": GONE, "attention_types": [[["local", "global"], 1]]},
            {"window_size": 7},
            {"window_size": 9},
            {"activation_function": "gelu"},
        ],
    ),
    "gpt_neo/local-first": dict(
        about="`attention_types` in two groups over three layers; an MLP of its own width; the tied head stored too",
        config=gpt_neo(
            attention_layers=GONE,
            attention_types=[[["local"], 1], [["global", "local"], 1]],
            hidden_size=20,
            intermediate_size=33,
            layer_norm_epsilon=1e-3,
            num_layers=3,
            window_size=5,
        ),
        layout=[stored_head("transformer.wte.weight")],
        mistakes=[
            {"attention_types": [[["global", "local"], 1], [["global"], 1]]},
            {"layer_norm_epsilon": 1e-5},
        ],
    ),
    "mpt/7b": dict(
        about="mpt-7b: ALiBi with a power of two heads, norms without bias, q, k, v in one tensor, erf gelu, tied",
        config=mpt(),
        mistakes=[{"attn_config": {"softmax_scale": 0.2}}, {"n_heads": 5}],
    ),
    "mpt/heads-12": dict(
        about="ALiBi with twelve heads, whose slopes are BLOOM's; `clip_qkv` and `softmax_scale`",
        config=mpt({"clip_qkv": 1.5, "softmax_scale": 0.3}, d_model=24, n_heads=12),
        store=torch.bfloat16,
        mistakes=[{"attn_config": {"clip_qkv": None}}, {"attn_config": {"softmax_scale": None}}],
    ),
    "mpt/storywriter": dict(
        about="mpt-7b-storywriter: `alibi_bias_max` 16",
        config=mpt({"alibi_bias_max": 16, "clip_qkv": 6}, max_seq_len=128),
        # transformers reads the key and uses 8 all the same. MPT's own code, which trained the weights, uses the key.
        stand_in=clip_as_a_float,
        mend=alibi_bias_max,
        mistakes=[{"attn_config": {"alibi_bias_max": 8}}],
    ),
    "olmo/7b": dict(
        about="OLMo: LayerNorms without parameters; q, k and v clipped",
        config=olmo(clip_qkv=1.5),
        mistakes=[{"clip_qkv": None}, {"rope_theta": 500.0}],
    ),
    "olmo/1b": dict(
        about="OLMo-1B: tied, nothing clipped; grouped heads",
        config=olmo(num_key_value_heads=2, tie_word_embeddings=True),
    ),
    "olmo2/7b": dict(
        about="OLMo-2: norms after the branches and none before; q and k normalised over all heads at once",
        config=olmo2(),
        same=[{"num_key_value_heads": GONE}],
        mistakes=[{"rope_theta": 10000.0}],
    ),
    "olmo2/32b": dict(
        about="OLMo-2-32B: grouped heads, so norms of two widths; an epsilon that matters",
        config=olmo2(num_key_value_heads=2, rms_norm_eps=1e-3),
        mistakes=[{"rms_norm_eps": 1e-6}],
    ),
    "glm/9b": dict(
        about="glm-4-9b-hf: RoPE in pairs on half of each head, gate and up in one tensor, biases on q, k, v alone",
        config=glm(),
        same=[{"partial_rotary_factor": GONE}],
        mistakes=[{"partial_rotary_factor": 1.0}, {"rope_theta": 500.0}, {"attention_bias": False}],
    ),
    "glm/no-bias": dict(
        about="`attention_bias` false; tied; an epsilon that matters",
        config=glm(attention_bias=False, num_key_value_heads=1, rms_norm_eps=1e-3, tie_word_embeddings=True),
        mistakes=[{"rms_norm_eps": 1e-6}],
    ),
    "glm4/9b": dict(
        about="GLM-4-0414: norms before and after each branch; no biases",
        config=glm4(),
        same=[{"partial_rotary_factor": GONE}],
        mistakes=[{"partial_rotary_factor": 1.0}, {"rope_theta": 500.0}],
    ),
    "glm4/bias": dict(
        about="`attention_bias`; one key head; an epsilon that matters",
        config={**glm4(num_key_value_heads=1, vocab_size=71), "attention_bias": True, "rms_norm_eps": 1e-3},
        mistakes=[{"attention_bias": False}, {"rms_norm_eps": 1e-5}],
    ),
    "chatglm/2-6b": dict(
        about="chatglm2-6b: RoPE in pairs on half of each head; q, k, v in one tensor, biases on them alone",
        config=chatglm2(),
        stand_in=glm_for_chatglm,
        stand_in_names=glm_names,
        layout=[chatglm_names],
        mistakes=[{"partial_rotary_factor": 1.0}, {"rope_theta": 500.0}, {"attention_bias": False}],
    ),
    "chatglm/2-6b-32k": dict(
        about="chatglm2-6b-32k: positions divided by `rope_ratio`; `transformers_version` tells it from chatglm3-6b-32k",
        config={**chatglm2(rope_ratio=16, seq_length=256), "_name_or_path": "THUDM/chatglm2-6b-32k"},
        n=40,
        stand_in=glm_for_chatglm,
        stand_in_names=glm_names,
        layout=[chatglm_names],
        mistakes=[{"rope_scaling": None}, {"rope_scaling": None, "rope_theta": 160000.0}],
    ),
    "chatglm/3-6b": dict(
        about="chatglm3-6b: as chatglm2-6b; one key head here; weights in f16; an epsilon that matters",
        config=chatglm(multi_query_group_num=1, layernorm_epsilon=1e-3),
        store=torch.float16,
        stand_in=glm_for_chatglm,
        stand_in_names=glm_names,
        layout=[chatglm_names],
        mistakes=[{"rms_norm_eps": 1e-5}],
    ),
    "chatglm/3-6b-32k": dict(
        about="chatglm3-6b-32k: RoPE's base times `rope_ratio`",
        config=chatglm(_name_or_path="THUDM/chatglm3-6b-32k", rope_ratio=50, seq_length=256),
        n=40,
        stand_in=glm_for_chatglm,
        stand_in_names=glm_names,
        layout=[chatglm_names],
        mistakes=[
            {"rope_theta": 10000.0},
            {"rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 50.0}},
        ],
    ),
    "chatglm/square": dict(
        about="as chatglm3-6b, with heads as wide together as the stream: what candle-transformers can read",
        config=chatglm(hidden_size=32),
        stand_in=glm_for_chatglm,
        stand_in_names=glm_names,
        layout=[chatglm_names],
    ),
    "chatglm/glm-4-9b": dict(
        about="glm-4-9b in its first form: ChatGLM's keys and names, `rope_ratio` 500, an epsilon of its own",
        config=chatglm(
            _name_or_path="THUDM/glm-4-9b-chat",
            attention_softmax_in_fp32=True,
            eos_token_id=[69, 70, 71],
            fp32_residual_connection=False,
            layernorm_epsilon=1.5625e-07,
            rope_ratio=500,
            torch_dtype="bfloat16",
            vocab_size=GONE,
        ),
        store=torch.bfloat16,
        stand_in=glm_for_chatglm,
        stand_in_names=glm_names,
        layout=[chatglm_names],
        mistakes=[{"rope_theta": 10000.0}],
    ),
    "mixtral/8x7b": dict(
        about="Mixtral: two of five experts, weights made to sum to one; three linears for each expert; no window",
        config=mixtral(),
        store=torch.bfloat16,
        layout=[experts("block_sparse_moe", "w1", "w3", "w2")],
        mistakes=[{"num_experts_per_tok": 1}, {"num_experts_per_tok": 3}, {"rope_theta": 10000.0}],
    ),
    "mixtral/window": dict(
        about="three of four experts; a window of 8 tokens; tied; an epsilon that matters",
        config=mixtral(
            intermediate_size=13,
            num_experts_per_tok=3,
            num_local_experts=4,
            rms_norm_eps=1e-3,
            sliding_window=8,
            tie_word_embeddings=True,
        ),
        store=torch.bfloat16,
        layout=[experts("block_sparse_moe", "w1", "w3", "w2")],
        mistakes=[{"sliding_window": None}, {"sliding_window": 7}, {"rms_norm_eps": 1e-5}],
    ),
    "qwen2_moe/a2.7b": dict(
        about="Qwen1.5-MoE: three of six experts, weights that do not sum to one; one for all, with a gate of its own",
        config=qwen2_moe(),
        store=torch.bfloat16,
        layout=[experts("mlp", "gate_proj", "up_proj", "down_proj")],
        same=[{"mlp_only_layers": [], "norm_topk_prob": GONE}],
        mistakes=[{"norm_topk_prob": True}, {"num_experts_per_tok": 2}],
    ),
    "qwen2_moe/sparse-step": dict(
        about="Qwen2-57B-A14B's keys: experts in every second layer but those in `mlp_only_layers`; grouped heads",
        config=qwen2_moe(
            decoder_sparse_step=2,
            mlp_only_layers=[3],
            moe_intermediate_size=7,
            norm_topk_prob=True,
            num_experts=4,
            num_experts_per_tok=2,
            num_hidden_layers=4,
            num_key_value_heads=2,
            rms_norm_eps=1e-3,
            shared_expert_intermediate_size=11,
        ),
        store=torch.bfloat16,
        layout=[experts("mlp", "gate_proj", "up_proj", "down_proj")],
        mistakes=[{"norm_topk_prob": False}, {"rms_norm_eps": 1e-6}],
    ),
    "qwen3_moe/a3b": dict(
        about="Qwen3-30B-A3B: three of seven experts, weights made to sum to one; q and k normalised head by head",
        config=qwen3_moe(),
        store=torch.bfloat16,
        layout=[experts("mlp", "gate_proj", "up_proj", "down_proj")],
        mistakes=[{"norm_topk_prob": False}, {"num_experts_per_tok": 2}, {"rope_theta": 10000.0}],
    ),
    "qwen3_moe/mlp-only": dict(
        about="a layer without experts by `mlp_only_layers`; weights that do not sum to one; an epsilon that matters",
        config=qwen3_moe(
            mlp_only_layers=[1], norm_topk_prob=False, num_experts=4, num_hidden_layers=3, rms_norm_eps=1e-3
        ),
        store=torch.bfloat16,
        layout=[experts("mlp", "gate_proj", "up_proj", "down_proj")],
        same=[{"norm_topk_prob": GONE}],
        mistakes=[{"norm_topk_prob": True}, {"rms_norm_eps": 1e-6}],
    ),
    "mamba/130m-hf": dict(
        about="mamba-130m-hf: a convolution with bias, a state of 5, a step of rank 3; tied, a padded vocabulary",
        config=mamba(),
        vocab=67,
        same=[{"intermediate_size": GONE, "tie_word_embeddings": True}],
        mistakes=[{"use_conv_bias": False}, {"hidden_act": "gelu"}],
    ),
    "mamba/bias": dict(
        about="`use_bias`, `use_conv_bias` false; a shorter convolution; `expand` 3; untied; an epsilon that matters",
        config=mamba(
            conv_kernel=3,
            d_inner=48,
            d_model=16,
            expand=3,
            hidden_size=16,
            intermediate_size=48,
            layer_norm_epsilon=1e-3,
            tie_word_embeddings=False,
            time_step_rank="auto",
            use_bias=True,
            use_conv_bias=False,
        ),
        store=torch.bfloat16,
        mistakes=[{"use_bias": False}, {"layer_norm_epsilon": 1e-5}],
    ),
    "mamba/original": dict(
        about="mamba-130m as the mamba_ssm package stores it: no `model_type`, a vocabulary padded to 72",
        config=original_mamba(),
        vocab=67,
        stand_in=mamba_for_original,
        stand_in_names=mamba_names,
        layout=[original_mamba_names],
    ),
    "mamba2/codestral": dict(
        about="Mamba-Codestral: two groups, normed one by one, after the gate whatever the file says; Infinity in it",
        config=mamba2(),
        same=[{"norm_before_gate": GONE, "chunk_size": 256, "time_step_limit": GONE}],
        mistakes=[{"use_conv_bias": False}, {"hidden_act": "gelu"}],
    ),
    "mamba2/one-group": dict(
        about="mamba2-130m in transformers' form: one group; tied; chunks shorter than the text",
        config=mamba2(
            chunk_size=8,
            conv_kernel=3,
            head_dim=16,
            layer_norm_epsilon=1e-3,
            n_groups=1,
            norm_before_gate=False,
            num_heads=2,
            tie_word_embeddings=True,
        ),
        mistakes=[{"layer_norm_epsilon": 1e-5}],
    ),
    "mamba2/bias": dict(
        about="`use_bias`, `use_conv_bias` false; `time_step_limit` left out",
        config=mamba2(time_step_limit=GONE, use_bias=True, use_conv_bias=False),
        mistakes=[{"use_bias": False}],
    ),
    "mamba2/original": dict(
        about="mamba2-130m as the mamba_ssm package stores it: `ssm_cfg` names the layer, the rest are defaults",
        config=original_mamba(
            attn_cfg={},
            attn_layer_idx=[],
            d_intermediate=0,
            d_model=32,
            n_layer=1,
            pad_vocab_size_multiple=16,
            ssm_cfg={"layer": "Mamba2"},
            tie_embeddings=True,
        ),
        vocab=67,
        store=torch.bfloat16,
        stand_in=mamba2_for_original,
        stand_in_names=mamba_names,
        layout=[original_mamba_names],
    ),
}

# One of each family also says what half precision gives, to judge the decoder's bf16 and fp16 by.
PRECISION = [
    "llama/gqa-tied",
    "mistral/window",
    "opt/125m",
    "bloom/heads-8",
    "gpt2/prefixed",
    "qwen2/plain",
    "qwen3/plain",
    "gemma/2b",
    "gemma2/2b",
    "gemma3/text",
    "stablelm/12b",
    "phi/1_5",
    "phi3/mini-4k",
    "falcon/7b",
    "falcon/rw",
    "gpt_neox/sequential",
    "gpt_neo/125m",
    "mpt/7b",
    "olmo/7b",
    "olmo2/7b",
    "glm/9b",
    "glm4/9b",
    "mixtral/8x7b",
    "qwen2_moe/a2.7b",
    "qwen3_moe/a3b",
    "mamba/130m-hf",
    "mamba2/codestral",
]
