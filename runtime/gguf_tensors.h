#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "quant/gguf.h"
#include "quant/safetensors.h"

namespace moraine::runtime {

/// The Hugging Face name of a tensor of a GGUF file ("blk.3.attn_q_a.weight" → "model.layers.3.self_attn.q_a_proj.
/// weight"), or nothing if it is another kind of tensor. Stacked experts are none: see gguf_checkpoint.
std::optional<std::string> hf_tensor_name(std::string_view gguf_name);
/// The way back: for tensors of a checkpoint, routed experts excepted.
std::optional<std::string> gguf_tensor_name(std::string_view hf_name);

/// A GGUF's tensors as a checkpoint has them: under their Hugging Face names, with every expert of a stacked tensor
/// [experts, out, in] a matrix of its own that lies in the same bytes. Tensors without such a name keep their own.
/// Throws quant::Error(kBadFile) for stacked tensors of an impossible shape, and if a file can't be opened.
quant::Checkpoint gguf_checkpoint(const quant::Gguf& gguf);

}  // namespace moraine::runtime
