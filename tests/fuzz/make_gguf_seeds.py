"""Makes corpus/gguf_model/valid_*.gguf: headers of small models, without their tensors' bytes (gguf_model_fuzz.cpp appends zeros).

Usage: make_gguf_seeds.py MORAINE     MORAINE: build/release/bin/moraine, whose `convert --gguf` writes them
"""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent / "corpus"
VOCAB, HIDDEN = 300, 32
COMMON = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": 48, "num_attention_heads": 2, "hidden_act": "silu",
          "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "bos_token_id": 0, "eos_token_id": 1}
DEEPSEEK = {**COMMON, "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_hidden_layers": 2,
            "moe_intermediate_size": 32, "n_shared_experts": 1, "n_routed_experts": 4, "routed_scaling_factor": 2.5,
            "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 4, "v_head_dim": 8, "qk_nope_head_dim": 8,
            "topk_method": "noaux_tc", "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
            "norm_topk_prob": True, "scoring_func": "sigmoid", "rope_scaling": {
                "type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "beta_fast": 32, "beta_slow": 1,
                "mscale": 1.0, "mscale_all_dim": 1.0}}
QWEN = {**COMMON, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": 1,
        "num_key_value_heads": 1, "tie_word_embeddings": True}
LLAMA = {**COMMON, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1,
         "num_key_value_heads": 1, "tie_word_embeddings": False}


def ffn(prefix, width):
    return {prefix + "gate_proj": (width, HIDDEN), prefix + "up_proj": (width, HIDDEN), prefix + "down_proj": (HIDDEN, width)}


def tensors_of(config):
    tensors = {"model.embed_tokens": (VOCAB, HIDDEN), "model.norm": (HIDDEN,)}
    if not config.get("tie_word_embeddings"):
        tensors["lm_head"] = (VOCAB, HIDDEN)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        tensors |= {prefix + "input_layernorm": (HIDDEN,), prefix + "post_attention_layernorm": (HIDDEN,)}
        attention = {"q_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32), "o_proj": (32, 32)}
        if config["model_type"] == "deepseek_v3":
            attention = {"q_a_proj": (24, 32), "q_a_layernorm": (24,), "q_b_proj": (24, 24), "kv_a_proj_with_mqa": (20, 32),
                         "kv_a_layernorm": (16,), "kv_b_proj": (32, 16), "o_proj": (32, 16)}
        tensors |= {f"{prefix}self_attn.{name}": shape for name, shape in attention.items()}
        if layer < config.get("first_k_dense_replace", 1):
            tensors |= ffn(prefix + "mlp.", 48)
            continue
        tensors |= {prefix + "mlp.gate": (4, 32), **ffn(prefix + "mlp.shared_experts.", 32)}
        for expert in range(4):
            tensors |= ffn(f"{prefix}mlp.experts.{expert}.", 32)
    named = {name + ".weight": shape for name, shape in tensors.items()}
    if config["model_type"] == "deepseek_v3":
        named["model.layers.1.mlp.gate.e_score_correction_bias"] = (4,)
    if config["model_type"] == "qwen2":
        named |= {f"model.layers.0.self_attn.{part}_proj.bias": (rows,) for part, rows in (("q", 32), ("k", 16), ("v", 16))}
    return named


def write_model(directory, config, tokenizer):
    header, end = {}, 0
    for name, shape in tensors_of(config).items():
        begin, end = end, end + 2 * (shape[0] * (shape[1] if len(shape) > 1 else 1))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_bytes((HERE / "tokenizer" / tokenizer).read_bytes())


def main():
    for name, config, tokenizer in (("deepseek2", DEEPSEEK, "valid_deepseek_v3.json"), ("qwen2", QWEN, "valid_qwen2_nfc.json"),
                                    ("llama", LLAMA, "valid_llama3_ignore_merges.json")):
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            write_model(scratch, config, tokenizer)
            out = scratch / "out.gguf"
            subprocess.run([sys.argv[1], "convert", str(scratch), str(out), "--gguf"], check=True)
            # The weights are zeros: what follows the last byte that is none is theirs, or padding.
            file = out.read_bytes().rstrip(b"\0")
            (HERE / "gguf_model" / f"valid_{name}.gguf").write_bytes(file + bytes(-len(file) % 32))


main()
