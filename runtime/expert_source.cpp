#include "runtime/expert_source.h"

#include <fmt/format.h>

#include "offload/pack_source.h"
#include "quant/error.h"
#include "runtime/checkpoint_experts.h"

namespace moraine::runtime {
namespace {

using quant::dtype_name;

/// "Q4_K (down Q4_0)" where matrices differ, "Q4_K" where they do not.
std::string type_name_of(const quant::ExpertLayout& layout) {
  std::string name(dtype_name(layout.gate.type));
  if (layout.down.type != layout.gate.type) name += fmt::format(" (down {})", dtype_name(layout.down.type));
  return name;
}

/// A pack says of itself what it holds; config.json says what it should be. They must agree.
void check_pack(const quant::PackIndex& index, const ModelConfig& config, const std::filesystem::path& directory) {
  const auto fail = [&](const std::string& what, const std::string& expected, const std::string& got) {
    throw quant::Error(quant::ErrorKind::kBadFile, {.what = what,
                                                    .file = directory / quant::PackIndex::kFileName,
                                                    .expected = expected,
                                                    .got = got,
                                                    .action = "convert the model again"});
  };
  std::vector<bool> present(static_cast<size_t>(config.num_hidden_layers), false);
  for (const quant::PackedLayer& layer : index.layers) {
    const quant::ExpertLayout& layout = layer.layout;
    if (layout.gate.rows != config.moe_intermediate_size || layout.gate.cols != config.hidden_size) {
      fail(fmt::format("layer {}: shape of the experts", layer.layer),
           fmt::format("[{}, {}] by config.json", config.moe_intermediate_size, config.hidden_size),
           fmt::format("[{}, {}]", layout.gate.rows, layout.gate.cols));
    }
    if (static_cast<int64_t>(layer.checksums.size()) != config.n_routed_experts) {
      fail(fmt::format("layer {}: number of experts", layer.layer),
           fmt::format("{} by config.json", config.n_routed_experts), fmt::format("{}", layer.checksums.size()));
    }
    if (layer.layer < config.num_hidden_layers) present[static_cast<size_t>(layer.layer)] = true;
  }
  for (int64_t l = config.first_k_dense_replace; l < config.num_hidden_layers; ++l) {
    if (!present[static_cast<size_t>(l)]) fail("a layer is missing", fmt::format("experts of layer {}", l), "none");
  }
}

ExpertSource open_pack(const std::filesystem::path& directory, const ModelConfig& config, int64_t layer_count,
                       std::optional<quant::DType> experts) {
  quant::PackIndex index = quant::PackIndex::read(directory);
  if (experts && dtype_name(*experts) != index.wanted_type) {
    throw quant::Error(quant::ErrorKind::kUsage,
                       {.what = fmt::format("this pack holds its experts as {}; --experts {} cannot be made of it",
                                            index.wanted_type, dtype_name(*experts)),
                        .file = directory,
                        .action = "leave --experts out, or convert the original model again"});
  }
  check_pack(index, config, directory);
  ExpertSource source;
  source.layouts.resize(static_cast<size_t>(layer_count));
  std::erase_if(index.layers, [&](const quant::PackedLayer& layer) { return layer.layer >= layer_count; });
  for (const quant::PackedLayer& layer : index.layers) source.layouts[static_cast<size_t>(layer.layer)] = layer.layout;
  source.records = std::make_shared<offload::PackSource>(directory, std::move(index));
  return source;
}

}  // namespace

ExpertSource open_expert_source(const quant::Checkpoint& checkpoint, const ModelConfig& config,
                                std::optional<quant::DType> experts, bool include_mtp) {
  const int64_t layer_count = config.num_hidden_layers + (include_mtp ? config.num_nextn_predict_layers : 0);
  ExpertSource source;
  if (quant::PackIndex::present(checkpoint.directory())) {
    source = open_pack(checkpoint.directory(), config, layer_count, experts);
  } else {
    const auto records = std::make_shared<CheckpointExperts>(checkpoint, config, layer_count, experts);
    source.records = records;
    source.layouts = records->layouts();
  }
  const auto first = std::min(config.first_k_dense_replace, layer_count - 1);
  source.type_name = config.is_moe_layer(first) ? type_name_of(source.layouts[static_cast<size_t>(first)]) : "none";
  return source;
}

ExpertSource open_streamed_ffn(const quant::Checkpoint& checkpoint, const ModelConfig& config,
                               std::optional<quant::DType> resident) {
  const auto records = std::make_shared<CheckpointExperts>(CheckpointExperts::dense_ffns(checkpoint, config, resident));
  return {.records = records, .layouts = records->layouts(), .type_name = type_name_of(records->layouts().front())};
}

}  // namespace moraine::runtime
