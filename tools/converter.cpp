#include "tools/converter.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "quant/json.h"
#include "runtime/model_text.h"
#include "runtime/weight_loader.h"
#include "tools/record_reader.h"
#include "tools/source_fingerprint.h"

namespace moraine::tools {
namespace {

bool has_mtp_tensors(const quant::Checkpoint& checkpoint, const runtime::ModelConfig& config) {
  const std::string prefix = fmt::format("model.layers.{}.", config.num_hidden_layers);
  const auto first = checkpoint.tensors().lower_bound(prefix);
  return first != checkpoint.tensors().end() && first->first.starts_with(prefix);
}

std::string identity(const runtime::ModelSource& source, const quant::Checkpoint& checkpoint,
                     std::optional<quant::DType> experts) {
  const quant::Json document = {{"format", "moraine-source-1"},
                                {"experts", experts ? quant::dtype_name(*experts) : "as stored"},
                                {"fingerprint", source_fingerprint(source, checkpoint)}};
  return document.dump(2) + "\n";
}

/// All that stays resident, in the order in which it lies in the source.
std::vector<quant::TensorInfo> resident_tensors_of(const quant::Checkpoint& checkpoint) {
  std::vector<quant::TensorInfo> tensors;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (!runtime::is_routed_expert_tensor(name)) tensors.push_back(tensor);
  }
  std::sort(tensors.begin(), tensors.end(), [](const quant::TensorInfo& a, const quant::TensorInfo& b) {
    return std::tie(a.file, a.offset, a.name) < std::tie(b.file, b.offset, b.name);
  });
  return tensors;
}

}  // namespace

Converter::Converter(ConvertOptions options)
    : options_(std::move(options)),
      source_(runtime::ModelSource::open(options_.source)),
      config_(source_->config()),
      checkpoint_(source_->checkpoint()),
      shards_(resident_tensors_of(checkpoint_), options_.shard_bytes),
      total_bytes_(shards_.total_bytes()) {
  const bool with_mtp = config_.num_nextn_predict_layers > 0 && has_mtp_tensors(checkpoint_, config_);
  experts_ = runtime::open_expert_source(checkpoint_, config_, options_.experts, with_mtp);
  for (size_t layer = 0; layer < experts_.layouts.size(); ++layer) {
    if (!config_.is_moe_layer(static_cast<int64_t>(layer))) continue;
    moe_layers_.push_back(static_cast<int>(layer));
    total_bytes_ += experts_.layouts[layer].record_bytes * static_cast<uint64_t>(config_.n_routed_experts);
  }
  // Hours of work must not end in a pack that can't be opened: everything a run needs is looked at first.
  (void)runtime::resident_bytes(checkpoint_, config_);
  (void)runtime::ModelText::from_source(*source_, config_);
  destination_.emplace(options_.destination, identity(*source_, checkpoint_, options_.experts),
                       "the destination holds a conversion of another model or with another --experts");
  if (!already_done() && !options_.dry_run) check_space();
}

void Converter::advance(uint64_t bytes, const std::string& note) {
  done_bytes_ += bytes;
  if (progress_) progress_(std::min(done_bytes_, total_bytes_), total_bytes_, note);
}

void Converter::begin() {
  destination_->begin();
}

void Converter::run(const ConvertProgress& progress) {
  if (already_done()) return;
  begin();
  progress_ = progress;
  done_bytes_ = 0;
  quant::PackIndex pack;
  pack.wanted_type = expert_type();
  destination_->add_identity(pack);
  copy_text_files(pack);
  shards_.write(
      options_.destination,
      [&](const quant::TensorInfo& tensor, std::span<std::byte> bytes) { checkpoint_.read(tensor, bytes); },
      [&](uint64_t bytes, const std::string& note) { advance(bytes, note); }, pack);
  pack.layers = convert_experts();
  pack.write(options_.destination);
  done_ = true;
}

std::string Converter::expert_type() const {
  if (options_.experts) return std::string(quant::dtype_name(*options_.experts));
  if (moe_layers_.empty()) return std::string(quant::dtype_name(quant::DType::kBF16));
  return std::string(quant::dtype_name(experts_.layouts[static_cast<size_t>(moe_layers_.front())].gate.type));
}

void Converter::copy_text_files(quant::PackIndex& pack) const {
  for (const char* name :
       {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) {
    if (const auto text = source_->text(name)) destination_->add_text(name, *text, pack);
  }
}

std::vector<quant::PackedLayer> Converter::convert_experts() {
  ExpertFiles files{.directory = options_.destination,
                    .layers = {},
                    .records_in_memory = records_in_memory(options_.threads, most_bytes_per_record(*experts_.records))};
  for (const int layer : moe_layers_) {
    files.layers.push_back({.layer = layer,
                            .layout = experts_.layouts[static_cast<size_t>(layer)],
                            .n_experts = static_cast<int>(config_.n_routed_experts),
                            .note = fmt::format("layer {} of {}", layer, moe_layers_.back())});
  }
  const RecordReader reader(*experts_.records);
  return write_expert_files(
      files,
      [&](size_t index, int32_t expert, std::span<std::byte> record) {
        reader.read({.layer = moe_layers_[index], .expert = expert}, record);
      },
      [&](uint64_t bytes, const std::string& note) { advance(bytes, note); });
}

}  // namespace moraine::tools
