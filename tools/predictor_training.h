#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "runtime/engine.h"
#include "tools/console.h"
#include "tools/engine_options.h"
#include "tools/recall_meter.h"

namespace moraine::tools {

/// What `moraine eval recall` and `moraine train-predictor` are told.
struct PredictionOptions {
  EngineOptions engine;
  std::filesystem::path text_file;
  std::filesystem::path predictor_file;  ///< to measure (eval), to write (train); empty: none, the user's cache
  int64_t max_tokens = 8192;
  int64_t window = 256;  ///< tokens of a sequence
  bool json = false;
};

/// Points of recall by which a trained predictor has to beat the router to be kept.
inline constexpr double kLeastTrainingGain = 0.03;

/// Runs `moraine eval recall`. Returns the exit code.
int eval_recall(const PredictionOptions& options, Console& console);
/// Runs `moraine train-predictor`: learns from the first four fifths of the text, measures on the last.
int train_predictor(const PredictionOptions& options, Console& console);

}  // namespace moraine::tools
