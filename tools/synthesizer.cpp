#include "tools/synthesizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "quant/error.h"
#include "quant/json.h"
#include "quant/packed_matrix.h"
#include "quant/quantize.h"
#include "runtime/model_text.h"
#include "runtime/weight_loader.h"
#include "tools/synth_presets.h"

namespace moraine::tools {
namespace {

constexpr uint64_t kMaxTextFileBytes = 256u << 20;

float projection_deviation(int64_t cols) {
  return 1.0f / std::sqrt(static_cast<float>(cols));
}

quant::TensorInfo tensor_info(const std::string& name, quant::DType type, std::vector<int64_t> shape) {
  uint64_t size_bytes = quant::row_bytes(type, shape.back());
  if (shape.size() == 2) size_bytes *= static_cast<uint64_t>(shape.front());
  return {.name = name, .dtype = type, .shape = std::move(shape), .size_bytes = size_bytes};
}

}  // namespace

Spread synth_spread(const runtime::ResidentTensor& tensor) {
  if (tensor.name.ends_with("e_score_correction_bias")) return {.deviation = 0.005f};
  if (tensor.name.ends_with(".bias")) return {.deviation = 0.1f};
  if (tensor.cols == 0) return {.mean = 1.0f, .deviation = 0.02f};  // norms
  if (tensor.name.find("embed_tokens") != std::string::npos) return {.deviation = 1.0f};
  return {.deviation = projection_deviation(tensor.cols)};
}

std::string synth_config_text(const SynthOptions& options) {
  const SynthPreset& preset = find_synth_preset(options.preset);
  const int64_t dense_layers = options.dense_layers.value_or(preset.dense_layers);
  const int64_t moe_layers = options.moe_layers.value_or(preset.moe_layers);
  constexpr int64_t kMostLayers = 4096;  // ModelConfig's bound
  const bool is_moe = preset.moe_layers > 0;
  if (dense_layers < 0 || dense_layers > kMostLayers || moe_layers > kMostLayers - dense_layers ||
      (is_moe ? moe_layers < 1 : moe_layers != 0 || dense_layers < 1)) {
    throw quant::Error(quant::ErrorKind::kUsage,
                       {.what = fmt::format("impossible number of layers for {}", preset.name),
                        .expected = fmt::format("at least one {} layer{}, at most {} in all", is_moe ? "MoE" : "dense",
                                                is_moe ? "" : " and no MoE layer", kMostLayers),
                        .got = fmt::format("{} dense, {} MoE", dense_layers, moe_layers)});
  }
  quant::Json config = quant::parse_json(preset.config_json, "preset");
  config["num_hidden_layers"] = dense_layers + moe_layers;
  if (is_moe) config["first_k_dense_replace"] = dense_layers;
  config["vocab_size"] = options.vocab_size.value_or(preset.vocab_size);
  if (options.resident == quant::DType::kF8E4M3) {
    config["quantization_config"] = {{"activation_scheme", "dynamic"},
                                     {"fmt", "e4m3"},
                                     {"quant_method", "fp8"},
                                     {"weight_block_size", {quant::kFp8Block, quant::kFp8Block}}};
  }
  return config.dump(2) + "\n";
}

void fill_synth_record(uint64_t seed, const quant::ExpertLayout& layout, int layer, int32_t expert,
                       std::span<std::byte> record) {
  LaneRandom random(seed, fmt::format("layer {} expert {}", layer, expert));
  const auto fill = [&](const quant::MatrixDesc& matrix, uint64_t offset_bytes) {
    fill_packed(random, matrix, projection_deviation(matrix.cols),
                record.subspan(offset_bytes, quant::packed_bytes(matrix.type, matrix.rows, matrix.cols)));
  };
  fill(layout.gate, 0);
  fill(layout.up, layout.up_offset_bytes);
  fill(layout.down, layout.down_offset_bytes);
}

Synthesizer::Synthesizer(SynthOptions options)
    : options_(std::move(options)),
      config_text_(synth_config_text(options_)),
      config_(runtime::ModelConfig::parse(config_text_, "config.json")) {
  // The tokenizer must fit, and be there, before anything is written.
  (void)runtime::ModelText::from_directory(options_.tokenizer_source, config_);
  shards_.emplace(plan_resident(), options_.shard_bytes);
  if (config_.has_experts()) {
    layout_ = quant::ExpertLayout::make(options_.experts, config_.hidden_size, config_.moe_intermediate_size);
  }
  const int64_t moe_layers = config_.num_hidden_layers - config_.first_k_dense_replace;
  total_bytes_ =
      shards_->total_bytes() + layout_.record_bytes * static_cast<uint64_t>(moe_layers * config_.n_routed_experts);
  destination_.emplace(options_.destination, identity(),
                       "the destination holds another model, or one made with other options");
  if (!already_done()) destination_->check_space(total_bytes_, options_.free_bytes);
}

std::vector<quant::TensorInfo> Synthesizer::plan_resident() {
  std::vector<quant::TensorInfo> tensors;
  for (const runtime::ResidentTensor& tensor : runtime::resident_tensors(config_)) {
    quant::DType type = quant::DType::kBF16;
    if (tensor.is_projection) type = quant::packable_type(options_.resident, tensor.cols);
    if (tensor.name.ends_with("e_score_correction_bias")) type = quant::DType::kF32;
    spreads_[tensor.name] = synth_spread(tensor);
    tensors.push_back(tensor_info(tensor.name, type,
                                  tensor.cols == 0 ? std::vector{tensor.rows} : std::vector{tensor.rows, tensor.cols}));
    if (type != quant::DType::kF8E4M3) continue;
    const auto squares = [](int64_t size) { return (size + quant::kFp8Block - 1) / quant::kFp8Block; };
    const std::string name = tensor.name + "_scale_inv";
    const float scale = projection_deviation(tensor.cols) / kE4m3Deviation;
    spreads_[name] = {.mean = scale, .deviation = scale / 10};
    tensors.push_back(tensor_info(name, quant::DType::kF32, {squares(tensor.rows), squares(tensor.cols)}));
  }
  return tensors;
}

std::string Synthesizer::identity() const {
  const quant::Json document = {{"format", "moraine-synth-1"},
                                {"preset", options_.preset},
                                {"dense_layers", config_.first_k_dense_replace},
                                {"moe_layers", config_.num_hidden_layers - config_.first_k_dense_replace},
                                {"vocab_size", config_.vocab_size},
                                {"experts", quant::dtype_name(options_.experts)},
                                {"resident", quant::dtype_name(options_.resident)},
                                {"seed", options_.seed}};
  return document.dump(2) + "\n";
}

void Synthesizer::run(const SynthProgress& progress) {
  if (already_done()) return;
  destination_->begin();
  uint64_t done_bytes = 0;
  const PackAdvance advance = [&](uint64_t bytes, const std::string& note) {
    done_bytes += bytes;
    if (progress) progress(done_bytes, total_bytes_, note);
  };
  quant::PackIndex pack;
  pack.wanted_type = quant::dtype_name(options_.experts);
  destination_->add_identity(pack);
  destination_->add_text("config.json", config_text_, pack);
  for (const char* name :
       {"generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) {
    std::error_code ignored;
    if (!std::filesystem::exists(options_.tokenizer_source / name, ignored)) continue;
    destination_->add_text(name, quant::read_text(options_.tokenizer_source / name, kMaxTextFileBytes), pack);
  }
  shards_->write(
      options_.destination,
      [&](const quant::TensorInfo& tensor, std::span<std::byte> bytes) { fill_resident(tensor, bytes); }, advance,
      pack);
  ExpertFiles files{.directory = options_.destination,
                    .layers = {},
                    .records_in_memory = records_in_memory(options_.threads, layout_.record_bytes)};
  for (int64_t layer = config_.first_k_dense_replace; layer < config_.num_hidden_layers; ++layer) {
    files.layers.push_back({.layer = static_cast<int>(layer),
                            .layout = layout_,
                            .n_experts = static_cast<int>(config_.n_routed_experts),
                            .note = fmt::format("layer {} of {}", layer, config_.num_hidden_layers - 1)});
  }
  pack.layers = write_expert_files(
      files,
      [&](size_t index, int32_t expert, std::span<std::byte> record) {
        fill_synth_record(options_.seed, layout_, files.layers[index].layer, expert, record);
      },
      advance);
  pack.write(options_.destination);
  done_ = true;
}

void Synthesizer::fill_resident(const quant::TensorInfo& tensor, std::span<std::byte> bytes) const {
  LaneRandom random(options_.seed, tensor.name);
  fill_tensor(random, tensor.dtype, spreads_.at(tensor.name), bytes);
}

}  // namespace moraine::tools
