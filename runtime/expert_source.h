#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "offload/expert_record_source.h"
#include "quant/dtype.h"
#include "quant/expert_pack.h"
#include "quant/safetensors.h"
#include "runtime/model_config.h"

namespace moraine::runtime {

/// A model's routed experts: where their records come from and how they are laid out.
struct ExpertSource {
  std::shared_ptr<const offload::ExpertRecordSource> records;
  std::vector<quant::ExpertLayout> layouts;  // [num_hidden_layers (+ MTP layers)], meaningful for layers with records
  std::string type_name;                     ///< as a person would say it: "F8_E4M3", "Q4_K", "Q4_K (down Q4_0)"
};

/// The experts of a pack, or of a checkpoint re-laid-out as stored (`experts` absent) or quantized to `experts` on
/// arrival. `include_mtp`: also those of the MTP layers. Throws quant::Error(kBadFile) for missing tensors, wrong
/// dtypes or shapes; for a pack with `experts` other than its own, kUsage.
ExpertSource open_expert_source(const quant::Checkpoint& checkpoint, const ModelConfig& config,
                                std::optional<quant::DType> experts, bool include_mtp = false);

/// The FFNs of a dense model as records, from a directory, pack or GGUF file alike; `resident` as in LoadOptions, whose
/// stream_ffn leaves them out of the model. Throws as open_expert_source().
ExpertSource open_streamed_ffn(const quant::Checkpoint& checkpoint, const ModelConfig& config,
                               std::optional<quant::DType> resident);

}  // namespace moraine::runtime
