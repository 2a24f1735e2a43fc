#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "quant/json.h"
#include "quant/quantize.h"
#include "runtime/model_config.h"
#include "runtime/weight_loader.h"
#include "support/test_data.h"
#include "tools/random_weights.h"
#include "tools/synthesizer.h"

namespace moraine::testing {

/// DeepSeek-R1 as it was published: F8_E4M3 matrices with their scales per 128 × 128 square, in safetensors shards with
/// an index, cut to a few layers or whole (91,991 tensors). Names, shapes and types:
/// tests/data/configs/deepseek-r1.json and a public dump of the checkpoint's tensor list.
struct Fp8Checkpoint {
  int64_t dense_layers = 3;
  int64_t moe_layers = 58;
  bool mtp = true;  ///< with the layer of multi-token prediction
  int64_t vocab_size = 129280;
  size_t shards = 163;
  bool sparse = false;  ///< true headers, holes for weights
};

struct Fp8Tensor {
  quant::TensorInfo info;
  tools::Spread spread;
};

inline std::string fp8_config_text(const Fp8Checkpoint& wanted) {
  quant::Json config = quant::Json::parse(quant::read_text(test_data("configs/deepseek-r1.json"), 1 << 20));
  config["num_hidden_layers"] = wanted.dense_layers + wanted.moe_layers;
  config["first_k_dense_replace"] = wanted.dense_layers;
  config["num_nextn_predict_layers"] = wanted.mtp ? 1 : 0;
  config["vocab_size"] = wanted.vocab_size;
  return config.dump(1);
}

/// All tensors, layer by layer.
inline std::vector<Fp8Tensor> fp8_tensors(const Fp8Checkpoint& wanted) {
  auto config = runtime::ModelConfig::parse(fp8_config_text(wanted), "config.json");
  const int64_t hidden = config.hidden_size, layers = config.num_hidden_layers;
  if (wanted.mtp) ++config.num_hidden_layers;  // a complete MoE layer, and what is added below
  std::vector<Fp8Tensor> tensors;
  const auto add = [&](const std::string& name, quant::DType type, std::vector<int64_t> shape, tools::Spread spread) {
    uint64_t size_bytes = quant::row_bytes(type, shape.back());
    if (shape.size() == 2) size_bytes *= static_cast<uint64_t>(shape.front());
    tensors.push_back({{.name = name, .dtype = type, .shape = std::move(shape), .size_bytes = size_bytes}, spread});
  };
  const auto add_fp8 = [&](const std::string& name, int64_t rows, int64_t cols) {
    const tools::Spread spread = tools::synth_spread({.name = name, .rows = rows, .cols = cols});
    const float scale = spread.deviation / tools::kE4m3Deviation;
    add(name, quant::DType::kF8E4M3, {rows, cols}, spread);
    add(name + "_scale_inv", quant::DType::kF32, {(rows + 127) / 128, (cols + 127) / 128},
        {.mean = scale, .deviation = scale / 10});
  };
  int64_t layer_of_experts = config.first_k_dense_replace;
  for (const runtime::ResidentTensor& tensor : runtime::resident_tensors(config)) {
    const tools::Spread spread = tools::synth_spread(tensor);
    if (tensor.is_projection && tensor.name != "lm_head.weight") {
      add_fp8(tensor.name, tensor.rows, tensor.cols);
    } else {
      const bool is_bias = tensor.name.ends_with("e_score_correction_bias");
      add(tensor.name, is_bias ? quant::DType::kF32 : quant::DType::kBF16,
          tensor.cols == 0 ? std::vector{tensor.rows} : std::vector{tensor.rows, tensor.cols}, spread);
    }
    if (!tensor.name.ends_with("mlp.gate.weight")) continue;
    for (int64_t e = 0; e < config.n_routed_experts; ++e) {
      const std::string prefix = fmt::format("model.layers.{}.mlp.experts.{}.", layer_of_experts, e);
      add_fp8(prefix + "gate_proj.weight", config.moe_intermediate_size, hidden);
      add_fp8(prefix + "up_proj.weight", config.moe_intermediate_size, hidden);
      add_fp8(prefix + "down_proj.weight", hidden, config.moe_intermediate_size);
    }
    ++layer_of_experts;
  }
  if (!wanted.mtp) return tensors;
  const std::string mtp = fmt::format("model.layers.{}.", layers);
  const auto add_mtp = [&](const char* name, std::vector<int64_t> shape) {
    add(mtp + name, quant::DType::kBF16, std::move(shape), {.mean = 0.0f, .deviation = 0.02f});
  };
  add_mtp("embed_tokens.weight", {wanted.vocab_size, hidden});
  add_mtp("enorm.weight", {hidden});
  add_mtp("hnorm.weight", {hidden});
  add_mtp("eh_proj.weight", {hidden, 2 * hidden});
  add_mtp("shared_head.norm.weight", {hidden});
  add_mtp("shared_head.head.weight", {wanted.vocab_size, hidden});
  return tensors;
}

/// Writes one shard of these tensors.
inline void write_fp8_shard(const std::filesystem::path& file, std::span<const Fp8Tensor> tensors, bool sparse) {
  if (!sparse) {
    std::vector<quant::TensorInfo> infos;
    for (const Fp8Tensor& tensor : tensors) infos.push_back(tensor.info);
    quant::SafetensorsWriter writer(file, infos);
    for (const Fp8Tensor& tensor : tensors) {
      std::vector<std::byte> bytes(tensor.info.size_bytes);
      tools::LaneRandom random(0, tensor.info.name);
      tools::fill_tensor(random, tensor.info.dtype, tensor.spread, bytes);
      writer.write(bytes);
    }
    return writer.finish();
  }
  std::string header = R"({"__metadata__":{"format":"pt"})";
  uint64_t begin = 0;
  for (const Fp8Tensor& tensor : tensors) {
    header += fmt::format(R"(,"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", tensor.info.name,
                          quant::dtype_name(tensor.info.dtype), fmt::join(tensor.info.shape, ","), begin,
                          begin + tensor.info.size_bytes);
    begin += tensor.info.size_bytes;
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t header_bytes = header.size();
  std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(&header_bytes), 8) << header << std::flush;
  std::filesystem::resize_file(file, 8 + header_bytes + begin);
}

/// Writes config.json, the index, the shards and tiny-r1's tokenizer into `directory`, which exists. `progress` hears
/// of each shard.
inline void write_fp8_checkpoint(const Fp8Checkpoint& wanted, const std::filesystem::path& directory,
                                 const std::function<void(size_t shard)>& progress = {}) {
  const std::vector<Fp8Tensor> tensors = fp8_tensors(wanted);
  uint64_t total_bytes = 0;
  for (const Fp8Tensor& tensor : tensors) total_bytes += tensor.info.size_bytes;
  quant::Json weight_map = quant::Json::object();
  size_t first = 0;
  uint64_t done_bytes = 0;
  for (size_t shard = 0; shard < wanted.shards; ++shard) {
    const std::string name = fmt::format("model-{:05}-of-{:06}.safetensors", shard + 1, wanted.shards);
    const uint64_t end_bytes = total_bytes / wanted.shards * (shard + 1);
    size_t last = first;
    while (last < tensors.size() && (last == first || shard + 1 == wanted.shards || done_bytes < end_bytes)) {
      weight_map[tensors[last].info.name] = name;
      done_bytes += tensors[last++].info.size_bytes;
    }
    write_fp8_shard(directory / name, std::span(tensors).subspan(first, last - first), wanted.sparse);
    first = last;
    if (progress) progress(shard);
  }
  std::ofstream(directory / "model.safetensors.index.json")
      << quant::Json({{"metadata", {{"total_size", total_bytes}}}, {"weight_map", std::move(weight_map)}}).dump(1);
  std::ofstream(directory / "config.json") << fp8_config_text(wanted);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    std::filesystem::copy_file(tiny_r1() / name, directory / name, std::filesystem::copy_options::overwrite_existing);
  }
}

}  // namespace moraine::testing
