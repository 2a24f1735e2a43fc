#include "tools/gguf_synthesizer.h"

#include <fmt/format.h>

#include <cstring>

#include "quant/error.h"
#include "quant/packed_matrix.h"
#include "runtime/gguf_metadata.h"
#include "runtime/model_source.h"
#include "tools/pack_parts.h"

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
  plan_ = plan_gguf(
      config_,
      [&](const runtime::ResidentTensor& tensor) { return quant::packable_type(options_.resident, tensor.cols); },
      [&](int64_t /*layer*/) { return layout_; });
  // The tokenizer must fit before anything is written.
  (void)runtime::gguf_metadata(PresetSource(options_.tokenizer_source, config_text_), options_.preset,
                               options_.experts);
  check_gguf_destination(options_.destination, plan_.total_bytes, options_.free_bytes);
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
  write_gguf(options_.destination,
             runtime::gguf_metadata(PresetSource(options_.tokenizer_source, config_text_),
                                    "synthetic " + options_.preset, options_.experts),
             plan_, config_,
             {.write_resident =
                  [&](size_t index, quant::GgufWriter& writer) {
                    writer.write(index, 0, resident_bytes(plan_.entries[index]));
                  },
              .layout_of = [&](int64_t /*layer*/) { return layout_; },
              .make_expert =
                  [&](int64_t layer, int32_t expert) {
                    quant::AlignedBuffer record(layout_.record_bytes);
                    fill_synth_record(options_.seed, layout_, static_cast<int>(layer), expert, record.span());
                    return record;
                  },
              .records_in_memory = records_in_memory(options_.threads, 2 * layout_.record_bytes),
              .identity = fmt::format("moraine-synth 1 preset {} seed {}", options_.preset, options_.seed)},
             progress);
}

}  // namespace moraine::tools
