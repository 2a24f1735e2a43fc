#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "quant/dtype.h"
#include "quant/json.h"
#include "runtime/model_config.h"

namespace moraine::tools {

/// Tensors of one kind: same part of the model, same dtype.
struct TensorGroup {
  std::string name;  ///< "attention", "router", "shared experts", "routed experts", "MTP", …
  std::string dtype;
  int64_t tensor_count = 0;
  uint64_t size_bytes = 0;
};

/// One tensor as `inspect --tensors` lists it.
struct TensorLine {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t size_bytes = 0;
  std::string file;
};

/// All that `moraine inspect` tells of a model, from headers alone.
struct Inspection {
  std::filesystem::path directory;
  bool is_pack = false;
  std::string kind;  ///< runtime::ModelSource::kind()
  runtime::ModelConfig config;
  std::vector<TensorGroup> groups;          // as stored, in the order of the walk through the model
  std::vector<TensorLine> tensors;          // ascending by name
  std::string expert_type;                  ///< as experts are computed with: "Q4_K (down Q4_0)"
  std::vector<std::string> fallbacks;       ///< one sentence per matrix that can't have the wanted type
  uint64_t expert_count = 0;                ///< over the decoder layers, MTP not counted
  uint64_t record_bytes = 0;                ///< of one expert
  std::string resident_type = "as stored";  ///< what resident matrices are quantized to on load, such as "Q8_0"
  uint64_t resident_bytes = 0;              ///< tier "resident"
  uint64_t expert_bytes = 0;                ///< tier "experts": all of them
  uint64_t kv_bytes_per_token = 0;
  uint64_t bytes_per_token = 0;  ///< of weights that one decoded token needs
  bool has_mtp = false;
  std::vector<std::string> warnings;
};

/// Any kind of runtime::ModelSource; of a configuration alone, what the published model would be. `experts`,
/// `resident`: how a directory's experts and a model's resident matrices would be quantized on load. Throws
/// quant::Error as opening the model does.
Inspection inspect_model(const std::filesystem::path& path, std::optional<quant::DType> experts,
                         std::optional<quant::DType> resident = {});

/// Which part of the model a tensor belongs to, by its name.
std::string tensor_group_name(const std::string& tensor, const runtime::ModelConfig& config);

std::string inspection_text(const Inspection& inspection, bool all_tensors);
quant::Json inspection_json(const Inspection& inspection, bool all_tensors);

}  // namespace moraine::tools
