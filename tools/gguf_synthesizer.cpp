#include "tools/gguf_synthesizer.h"

#include <fmt/format.h>

#include <cstring>

#include "quant/error.h"
#include "quant/packed_matrix.h"
#include "runtime/gguf_metadata.h"
#include "runtime/model_source.h"

namespace moraine::tools {
namespace {

using quant::DType;

/// A model that has no weights yet: a preset's config.json, the tokenizer of another model.
class PresetSource final : public runtime::ModelSource {
 public:
  PresetSource(const std::filesystem::path& tokenizer, std::string config_text)
      : tokenizer_(runtime::ModelSource::open(tokenizer)), config_text_(std::move(config_text)) {}

  const std::filesystem::path& path() const override { return tokenizer_->path(); }
  std::string_view kind() const override { return "preset"; }
  std::optional<std::string> text(std::string_view name) const override {
    return name == "config.json" ? config_text_ : tokenizer_->text(name);
  }
  std::filesystem::path text_file(std::string_view name) const override { return tokenizer_->text_file(name); }
  runtime::ModelConfig config() const override { return runtime::ModelConfig::parse(config_text_, "preset"); }
  quant::Checkpoint checkpoint() const override { return tokenizer_->checkpoint(); }

 private:
  std::unique_ptr<runtime::ModelSource> tokenizer_;
  std::string config_text_;
};

}  // namespace

GgufSynthesizer::GgufSynthesizer(SynthOptions options)
    : options_(std::move(options)),
      config_text_(synth_config_text(options_)),
      config_(runtime::ModelConfig::parse(config_text_, "config.json")) {
  if (options_.experts == DType::kF8E4M3 || options_.resident == DType::kF8E4M3) {
    throw quant::Error(quant::ErrorKind::kUsage, {.what = "GGUF has no F8_E4M3", .action = "choose Q8_0 or BF16"});
  }
  if (config_.has_experts()) {
    layout_ = quant::ExpertLayout::make(options_.experts, config_.hidden_size, config_.moe_intermediate_size);
  }
  entries_ = gguf_resident_entries(config_, [&](const runtime::ResidentTensor& tensor) {
    return quant::packable_type(options_.resident, tensor.cols);
  });
  resident_count_ = entries_.size();
  for (int64_t layer = config_.first_k_dense_replace; layer < config_.num_hidden_layers; ++layer) {
    const auto stacks = gguf_expert_entries(static_cast<int>(layer), config_.n_routed_experts, layout_);
    entries_.insert(entries_.end(), stacks.begin(), stacks.end());
  }
  for (const GgufEntry& entry : entries_) total_bytes_ += entry.info.size_bytes;
  // The tokenizer must fit before anything is written.
  (void)runtime::gguf_metadata(PresetSource(options_.tokenizer_source, config_text_), options_.preset,
                               options_.experts);
  check_gguf_destination(options_.destination, total_bytes_, options_.free_bytes);
}

std::vector<std::byte> GgufSynthesizer::resident_bytes(const GgufEntry& entry) const {
  runtime::ResidentTensor tensor = entry.resident;
  // Its rows are transposed: what it is multiplied with has the other width.
  if (tensor.name.ends_with(".k_b_proj.weight")) tensor.cols = config_.kv_lora_rank;
  std::vector<std::byte> bytes(entry.info.size_bytes);
  if (tensor.name == kRopeFactors) {
    const std::vector<float> factors = gguf_rope_factors(config_);
    std::memcpy(bytes.data(), factors.data(), bytes.size());
    return bytes;
  }
  LaneRandom random(options_.seed, tensor.name);
  fill_tensor(random, entry.info.dtype, synth_spread(tensor), bytes);
  return bytes;
}

void GgufSynthesizer::run(const SynthProgress& progress) {
  std::vector<quant::TensorInfo> tensors;
  for (const GgufEntry& entry : entries_) tensors.push_back(entry.info);
  quant::GgufWriter writer(options_.destination,
                           runtime::gguf_metadata(PresetSource(options_.tokenizer_source, config_text_),
                                                  "synthetic " + options_.preset, options_.experts),
                           std::move(tensors));
  uint64_t done_bytes = 0;
  const PackAdvance advance = [&](uint64_t bytes, const std::string& note) {
    done_bytes += bytes;
    if (progress) progress(done_bytes, total_bytes_, note);
  };
  for (size_t index = 0; index < resident_count_; ++index) {
    writer.write(index, 0, resident_bytes(entries_[index]));
    advance(entries_[index].info.size_bytes, "resident tensors");
  }
  size_t first_tensor = resident_count_;
  for (int64_t layer = config_.first_k_dense_replace; layer < config_.num_hidden_layers; ++layer) {
    const GgufExpertTask task = {.first_tensor = first_tensor,
                                 .layout = layout_,
                                 .n_experts = static_cast<int>(config_.n_routed_experts),
                                 .threads = options_.threads,
                                 .note = fmt::format("layer {} of {}", layer, config_.num_hidden_layers - 1)};
    write_gguf_experts(
        writer, task,
        [&](int32_t expert) { return make_synth_record(options_.seed, layout_, static_cast<int>(layer), expert); },
        advance);
    first_tensor += 3;
  }
  writer.finish();
}

}  // namespace moraine::tools
