#include "tools/planned_model.h"

#include "quant/safetensors.h"
#include "runtime/expert_source.h"
#include "runtime/model_source.h"
#include "runtime/weight_loader.h"
#include "tools/engine_setup.h"

namespace moraine::tools {

PlannedModel planned_model(std::string name, const runtime::ModelConfig& config, std::optional<quant::DType> experts,
                           std::optional<quant::DType> resident) {
  PlannedModel model{
      .name = std::move(name), .shape = runtime::model_shape(config, {.resident = resident}), .expert_type = {}};
  const quant::DType type = experts.value_or(config.fp8_weights ? quant::DType::kF8E4M3 : quant::DType::kBF16);
  quant::ExpertLayout layout;
  if (config.has_experts()) layout = quant::ExpertLayout::make(type, config.hidden_size, config.moe_intermediate_size);
  model.layouts.assign(static_cast<size_t>(config.num_hidden_layers), layout);
  model.expert_type = config.has_experts() ? quant::dtype_name(layout.gate.type) : "none";
  return model;
}

PlannedModel open_planned_model(const std::filesystem::path& path, std::optional<quant::DType> experts,
                                std::optional<quant::DType> resident) {
  const auto model = runtime::ModelSource::open(path);
  const runtime::ModelConfig config = model->config();
  if (!model->has_weights()) return planned_model(model_name(path), config, experts, resident);
  const quant::Checkpoint checkpoint = model->checkpoint();
  const runtime::ExpertSource source = runtime::open_expert_source(checkpoint, config, experts);
  return {.name = model_name(path),
          .shape = runtime::model_shape(checkpoint, config, {.resident = resident}),
          .layouts = source.layouts,
          .expert_type = source.type_name,
          .expert_files = source.records->files()};
}

}  // namespace moraine::tools
