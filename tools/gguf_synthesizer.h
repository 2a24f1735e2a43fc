#pragma once

#include <string>
#include <vector>

#include "quant/expert_layout.h"
#include "runtime/model_config.h"
#include "tools/gguf_parts.h"
#include "tools/synthesizer.h"

namespace moraine::tools {

/// Writes one GGUF file of a published model's shapes with random weights, for measuring other programs and this one on
/// the same model. Tensors and keys are those of files converted since autumn 2025; the tokenizer is the embedded
/// model's, filled up with unused tokens. The same options give the same bytes; whatever ends it, run() again goes
/// on where it stood.
class GgufSynthesizer {
 public:
  /// Plans and looks at the destination; writes nothing. Throws quant::Error: kUsage for options that make no sense or
  /// a destination that exists, kBadFile for the tokenizer, kNotEnough if the disk has too little room.
  explicit GgufSynthesizer(SynthOptions options);

  uint64_t total_bytes() const { return plan_.total_bytes; }
  const runtime::ModelConfig& config() const { return config_; }

  /// Throws quant::Error.
  void run(const SynthProgress& progress);

 private:
  std::vector<std::byte> resident_bytes(const GgufEntry& entry) const;

  SynthOptions options_;
  std::string config_text_;
  runtime::ModelConfig config_;
  quant::ExpertLayout layout_;
  GgufPlan plan_;
};

}  // namespace moraine::tools
