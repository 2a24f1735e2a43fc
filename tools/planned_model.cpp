#include "tools/planned_model.h"

#include "quant/error.h"
#include "quant/safetensors.h"
#include "runtime/model_source.h"
#include "runtime/streamed_ffn.h"
#include "runtime/weight_loader.h"
#include "tools/engine_setup.h"
#include "tools/model_sizes.h"

namespace moraine::tools {
namespace {

std::shared_ptr<const runtime::Model> shared(runtime::Model shape) {
  return std::make_shared<const runtime::Model>(std::move(shape));
}

double read_bytes_per_record(const offload::ExpertRecordSource& records) {
  if (records.experts().empty()) return 0.0;
  double sum = 0.0;
  for (const offload::ExpertId id : records.experts()) {
    for (const offload::Extent& extent : records.extents(id)) sum += static_cast<double>(extent.size_bytes);
  }
  return sum / static_cast<double>(records.experts().size());
}

double stored_bytes(const runtime::FfnWeights& ffn) {
  double sum = 0.0;
  for (const runtime::Matrix* matrix : {&ffn.gate_proj, &ffn.up_proj, &ffn.down_proj}) {
    const quant::PackedView& view = matrix->view;
    sum += static_cast<double>(quant::packed_bytes(view.type, view.rows, view.cols));
  }
  return sum;
}

/// A dense model that is not here: its FFNs are read as they are published, whatever they become in RAM.
ModelForm streamed_form(const runtime::ModelConfig& config, const runtime::Model& whole,
                        std::optional<quant::DType> resident) {
  const quant::DType type = whole.layers.front().ffn.gate_proj.view.type;
  const auto layout = quant::ExpertLayout::make(type, config.hidden_size, config.intermediate_size);
  return {
      .shape = shared(runtime::model_shape(config, {.resident = resident, .stream_ffn = true})),
      .source = {.records = nullptr,
                 .layouts = std::vector(static_cast<size_t>(config.num_hidden_layers), layout),
                 .type_name = std::string(quant::dtype_name(type))},
      .read_bytes_per_record = stored_bytes(runtime::model_shape(config).layers.front().ffn),
  };
}

/// A model whose weights are here.
ModelForm stored_form(const quant::Checkpoint& checkpoint, const runtime::ModelConfig& config,
                      std::optional<quant::DType> resident, runtime::ExpertSource source, bool stream_ffn) {
  const double read_bytes = read_bytes_per_record(*source.records);
  return {.shape = shared(runtime::model_shape(checkpoint, config, {.resident = resident, .stream_ffn = stream_ffn})),
          .source = std::move(source),
          .read_bytes_per_record = read_bytes};
}

/// Memory for experts is worth more than long chunks once scratch takes much of it: a prompt that is shorter loses
/// nothing, a longer one reads its experts more often, and every decoded token finds more of them.
bool takes_too_much(const offload::MemoryPlan& plan) {
  constexpr uint64_t kScratchShare = 4;
  const uint64_t beside_resident_bytes = plan.needs.scratch_bytes + plan.kv_bytes + plan.experts_budget_bytes;
  return !plan.holds_all_experts() && plan.needs.scratch_bytes > beside_resident_bytes / kScratchShare;
}

template <typename Placed>
PlacedModel with_fitting_chunk(const ModelForm& form, const Placed& placed, int64_t chunk_rows) {
  constexpr int64_t kLeastRows = 512;
  for (int64_t rows = chunk_rows;; rows /= 2) {
    const bool is_last = rows / 2 < kLeastRows;
    try {
      PlacedModel found = placed(form, rows);
      if (is_last || !takes_too_much(found.memory)) return found;
    } catch (const quant::Error& error) {
      if (is_last || error.kind() != quant::ErrorKind::kNotEnough) throw;
    }
  }
}

}  // namespace

std::vector<std::filesystem::path> ModelForm::files() const {
  if (source.records == nullptr) return {};
  return source.records->files();
}

PlannedModel planned_model(std::string name, const runtime::ModelConfig& config, std::optional<quant::DType> experts,
                           std::optional<quant::DType> resident) {
  ModelForm whole{.shape = shared(runtime::model_shape(config, {.resident = resident})), .source = {}};
  quant::ExpertLayout layout;
  if (config.has_experts()) {
    const quant::DType type = experts.value_or(config.fp8_weights ? quant::DType::kF8E4M3 : quant::DType::kBF16);
    layout = quant::ExpertLayout::make(type, config.hidden_size, config.moe_intermediate_size);
    whole.read_bytes_per_record = static_cast<double>(layout.record_bytes);
  }
  whole.source.layouts.assign(static_cast<size_t>(config.num_hidden_layers), layout);
  whole.source.type_name = config.has_experts() ? quant::dtype_name(layout.gate.type) : "none";
  PlannedModel model{.name = std::move(name), .whole = std::move(whole)};
  if (!config.has_experts()) {
    model.streamed = [config, whole_shape = model.whole.shape, resident] {
      return streamed_form(config, *whole_shape, resident);
    };
  }
  return model;
}

PlannedModel planned_model(std::string name, const quant::Checkpoint& checkpoint, const runtime::ModelConfig& config,
                           std::optional<quant::DType> experts, std::optional<quant::DType> resident) {
  PlannedModel model{.name = std::move(name),
                     .whole = stored_form(checkpoint, config, resident,
                                          runtime::open_expert_source(checkpoint, config, experts), false)};
  if (!config.has_experts()) {
    model.streamed = [checkpoint, config, resident] {
      return stored_form(checkpoint, config, resident, runtime::open_streamed_ffn(checkpoint, config, resident), true);
    };
  }
  return model;
}

PlannedModel open_planned_model(const std::filesystem::path& path, std::optional<quant::DType> experts,
                                std::optional<quant::DType> resident) {
  const auto model = runtime::ModelSource::open(path);
  const runtime::ModelConfig config = model->config();
  if (!model->has_weights()) return planned_model(model_name(path), config, experts, resident);
  return planned_model(model_name(path), model->checkpoint(), config, experts, resident);
}

int64_t PlacedModel::kept_layers() const {
  return runtime::StreamedFfn::kept_layers(static_cast<int64_t>(memory.slot_count),
                                           static_cast<int64_t>(form.shape->layers.size()));
}

PlacedModel place_model(const PlannedModel& model, const offload::MemoryRoom& room, const offload::MemoryWishes& wishes,
                        int64_t chunk_rows, bool precise) {
  const auto placed = [&](const ModelForm& form, int64_t rows) {
    const offload::MemoryNeeds needs = memory_needs(*form.shape, form.source.layouts, rows, precise);
    return PlacedModel{.form = form, .memory = offload::plan_memory(needs, room, wishes), .chunk_rows = rows};
  };
  if (!model.streamed || !wishes.experts_budget_bytes) {
    try {
      return with_fitting_chunk(model.whole, placed, chunk_rows);
    } catch (const quant::Error& error) {
      if (!model.streamed || error.kind() != quant::ErrorKind::kNotEnough) throw;
    }
  }
  return with_fitting_chunk(model.streamed(), placed, chunk_rows);
}

}  // namespace moraine::tools
