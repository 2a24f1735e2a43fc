#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "quant/expert_layout.h"
#include "runtime/model.h"

namespace moraine::tools {

/// A model's shapes and types, all that a plan needs. Its weights need not be on this machine.
struct PlannedModel {
  std::string name;
  runtime::Model shape;                                  ///< runtime::model_shape()
  std::vector<quant::ExpertLayout> layouts = {};         // [num_hidden_layers], meaningful for MoE layers
  std::string expert_type;                               ///< as a person would say it
  std::vector<std::filesystem::path> expert_files = {};  ///< where experts lie; empty: not here
};

/// `model`: a model directory, pack or GGUF file, a directory with nothing but config.json, or such a file itself.
/// Formats that are not asked for are those of the files, or those in which DeepSeek publishes. Throws quant::Error.
PlannedModel open_planned_model(const std::filesystem::path& model, std::optional<quant::DType> experts,
                                std::optional<quant::DType> resident);
/// The same from a config.
PlannedModel planned_model(std::string name, const runtime::ModelConfig& config, std::optional<quant::DType> experts,
                           std::optional<quant::DType> resident);

}  // namespace moraine::tools
