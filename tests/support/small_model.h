#pragma once

#include <filesystem>
#include <fstream>

#include "support/small_checkpoint.h"
#include "support/small_tokenizer.h"

namespace moraine::testing {

/// A SmallCheckpoint with a tokenizer that fits it: a whole model directory of some 80 KB. With `other_weights` one bit
/// of one tensor differs.
inline void write_small_model(const std::filesystem::path& directory, bool other_weights = false) {
  SmallCheckpoint checkpoint;
  checkpoint.config["vocab_size"] = 300;
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
    SmallCheckpoint::Tensor& tensor = checkpoint.tensors.at(name);
    tensor.shape = {300, 32};
    tensor.bytes.resize(300 * 32 * 2);
  }
  if (other_weights) checkpoint.tensors.at("model.norm.weight").bytes[0] ^= std::byte{1};
  checkpoint.write(directory);
  std::ofstream(directory / "tokenizer.json") << small_tokenizer_json(runtime::PreTokenizerKind::kDeepSeekV3).dump();
}

}  // namespace moraine::testing
