#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "offload/expert_store.h"
#include "quant/dtype.h"

namespace moraine::tools {

/// What every command that opens a model can be told. The defaults need no flags.
struct EngineOptions {
  std::filesystem::path model;               ///< directory, pack or GGUF file; empty: the embedded model
  std::optional<uint64_t> ram_budget_bytes;  ///< for routed experts in RAM; nothing: as much as the machine has free
  std::optional<int64_t> context_tokens;     ///< most tokens of a conversation; nothing: planned
  int threads = 0;                           ///< 0: all that the process may use
  std::optional<quant::DType> experts;       ///< quantize a directory's experts on load; nothing: as stored
  std::optional<quant::DType> resident;      ///< quantize resident matrices on load; nothing or F8_E4M3: as stored
  offload::ReaderKind reader = offload::ReaderKind::kAuto;
  std::vector<std::filesystem::path> mirrors = {};  ///< directories with copies of the model's files on other drives
  bool prefetch = true;
  bool warm_start = true;                 ///< begin with the experts that the last run wanted most, and note this run's
  std::filesystem::path trace_file = {};  ///< to write a trace to; empty: none
  bool precise = false;                   ///< f32 activations throughout: slower than int8 ones, exact
  bool reference = false;                 ///< scalar arithmetic: slow, the definition the fast path is tested against
};

}  // namespace moraine::tools
