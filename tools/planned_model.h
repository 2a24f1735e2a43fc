#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "offload/memory_plan.h"
#include "runtime/expert_source.h"
#include "runtime/model.h"

namespace moraine::tools {

/// A way of holding a model: what is resident, and what are records of the expert store.
struct ModelForm {
  std::shared_ptr<const runtime::Model> shape;  ///< runtime::model_shape()
  runtime::ExpertSource source;                 ///< of its records; source.records is null if they are not here
  double read_bytes_per_record = 0.0;           ///< that the drive has to give for one; 0 without records

  /// Where the records lie; none if they are not here.
  std::vector<std::filesystem::path> files() const;
  /// A dense model's FFNs are the records.
  bool streams_ffns() const { return shape->streams_ffn(0); }
};

/// A model's shapes and types, all that a plan needs. Its weights need not be on this machine.
struct PlannedModel {
  std::string name;
  ModelForm whole;                           ///< everything but routed experts is resident
  std::function<ModelForm()> streamed = {};  ///< makes that form of a dense model, which most do not need; else empty

  const runtime::ModelConfig& config() const { return whole.shape->config; }
};

/// `model`: a model directory, pack or GGUF file, a directory with nothing but config.json, or such a file itself.
/// Formats that are not asked for are those of the files, or those in which DeepSeek publishes. Throws quant::Error.
PlannedModel open_planned_model(const std::filesystem::path& model, std::optional<quant::DType> experts,
                                std::optional<quant::DType> resident);
/// The same of files that are open.
PlannedModel planned_model(std::string name, const quant::Checkpoint& checkpoint, const runtime::ModelConfig& config,
                           std::optional<quant::DType> experts, std::optional<quant::DType> resident);
/// The same from a config.
PlannedModel planned_model(std::string name, const runtime::ModelConfig& config, std::optional<quant::DType> experts,
                           std::optional<quant::DType> resident);

/// The form in which a model is held, and where everything goes.
struct PlacedModel {
  ModelForm form;
  offload::MemoryPlan memory;
  int64_t chunk_rows = 0;  ///< rows of the largest step

  /// Layers of a streamed dense model whose FFNs stay in RAM; those of all others are read for every step.
  int64_t kept_layers() const;
};

/// Decides both, for `moraine plan` and for the engine: a dense model is streamed if it does not fit as a whole, or if
/// a budget was asked for. `chunk_rows`: the largest step; it is halved, down to 512, where not all records fit and its
/// scratch memory would take more than a quarter of what is left beside the resident weights, or where nothing fits
/// otherwise. `precise`: as in cpu::CpuOptions. Throws as plan_memory().
PlacedModel place_model(const PlannedModel& model, const offload::MemoryRoom& room, const offload::MemoryWishes& wishes,
                        int64_t chunk_rows, bool precise = false);

}  // namespace moraine::tools
