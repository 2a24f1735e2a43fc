#pragma once

#include <optional>
#include <string>

#include "quant/gguf.h"

namespace moraine::runtime {

/// The text files that a model in a GGUF file would have in a Hugging Face directory, made from its metadata. Each
/// throws quant::Error(kBadFile) that lists every missing or impossible key.

/// tokenizer.json: byte-level BPE of tokenizer.ggml.tokens, .token_type, .merges; the regexes of .pre. Control and
/// user-defined tokens are added ones (control ones special), unused ones are left out.
std::string gguf_tokenizer_json(const quant::Gguf& gguf);
/// tokenizer_config.json: bos, eos, pad, chat template.
std::string gguf_tokenizer_config_json(const quant::Gguf& gguf);
/// generation_config.json: where an answer ends (eos, eot, eom), and sampling where the file says it
/// (general.sampling.*).
std::string gguf_generation_config_json(const quant::Gguf& gguf);

}  // namespace moraine::runtime
