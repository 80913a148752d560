"""ChatGLM's forward pass in f64, written down from the formulas of the model's published code.

transformers has no `chatglm`: those checkpoints come with code of their own (`modeling_chatglm.py`). This is what that
code computes for ChatGLM2-6B, ChatGLM3-6B, their 32k forms and GLM-4-9B, in numpy and from the checkpoint's own keys
and names. `make.py` compares it with transformers' `glm`, the same model under other names, before it believes either.
"""

import numpy as np


def divides_positions(config):
    """ChatGLM2-6B-32k divides positions by `rope_ratio`; everything since multiplies RoPE's base by it.

    The two read the same key, and only the code beside the weights says which it is. In the published config.json that
    leaves `transformers_version`: 4.27.1 in all of ChatGLM2, 4.30.2 and later in ChatGLM3 and GLM-4.
    """
    return config["transformers_version"] == "4.27.1"


def rms_norm(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def rotate(x, config):
    """[n, heads, dim]: the first half of the dimensions turns, as pairs (0, 1), (2, 3), ...; the rest stays."""
    n, _, dim = x.shape
    half = dim // 2
    ratio = config.get("rope_ratio", 1)
    base, positions = 10000.0, np.arange(n, dtype=np.float64)
    if divides_positions(config):
        positions = positions / ratio
    else:
        base = base * ratio
    angles = positions[:, None] / base ** (np.arange(0, half, 2) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    even, odd = x[..., 0:half:2], x[..., 1:half:2]
    out = x.copy()
    out[..., 0:half:2] = even * cos - odd * sin
    out[..., 1:half:2] = odd * cos + even * sin
    return out


def attention(x, layer, weight, config):
    heads, groups, dim = config["num_attention_heads"], config["multi_query_group_num"], config["kv_channels"]
    n = len(x)
    mixed = x @ weight("self_attention.query_key_value.weight").T
    if config["add_qkv_bias"]:
        mixed = mixed + weight("self_attention.query_key_value.bias")
    q, k, v = np.split(mixed, [heads * dim, (heads + groups) * dim], axis=1)
    q = rotate(q.reshape(n, heads, dim), config)
    k = np.repeat(rotate(k.reshape(n, groups, dim), config), heads // groups, axis=1)
    v = np.repeat(v.reshape(n, groups, dim), heads // groups, axis=1)

    # `apply_query_key_layer_scaling`: scores are divided by the layer's number, to fit f16, and multiplied again.
    number = layer + 1
    scores = np.einsum("ihd,jhd->hij", q, k) / (np.sqrt(dim) * number) * number
    scores = np.where(np.tril(np.ones((n, n), bool)), scores, -np.inf)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores = scores / scores.sum(axis=-1, keepdims=True)
    mixed = np.einsum("hij,jhd->ihd", scores, v).reshape(n, heads * dim)
    return mixed @ weight("self_attention.dense.weight").T


def mlp(x, weight):
    gate, up = np.split(x @ weight("mlp.dense_h_to_4h.weight").T, 2, axis=1)
    return (gate / (1 + np.exp(-gate)) * up) @ weight("mlp.dense_4h_to_h.weight").T


def logits(config, tensors, tokens):
    """[n, padded vocabulary]. `config` is config.json, `tensors` the file's, as numpy arrays."""
    tensors = {name: np.asarray(t, dtype=np.float64) for name, t in tensors.items()}
    epsilon = config["layernorm_epsilon"]
    x = tensors["transformer.embedding.word_embeddings.weight"][tokens]
    for layer in range(config["num_layers"]):

        def weight(name, prefix=f"transformer.encoder.layers.{layer}."):
            return tensors[prefix + name]

        x = x + attention(rms_norm(x, weight("input_layernorm.weight"), epsilon), layer, weight, config)
        x = x + mlp(rms_norm(x, weight("post_attention_layernorm.weight"), epsilon), weight)
    x = rms_norm(x, tensors["transformer.encoder.final_layernorm.weight"], epsilon)
    return x @ tensors["transformer.output_layer.weight"].T
