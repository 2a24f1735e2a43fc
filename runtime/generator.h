#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "offload/expert_store.h"
#include "runtime/sampler.h"

namespace moraine::runtime {

class Engine;
class Session;

struct GenerateOptions {
  int64_t max_tokens = 32768;
  SamplingOptions sampling;
};

/// A token as it comes: its text (UTF-8 whole; incomplete sequences are held back to a later event) and whether it
/// belongs to the model's thinking. The markers <think> and </think> and the end token have an empty text.
struct TokenEvent {
  int32_t id = 0;
  std::string_view text;
  bool thinking = false;
};

enum class FinishReason {
  kStop,       ///< the model ended its answer
  kLength,     ///< max_tokens reached
  kContext,    ///< Engine::context_tokens() reached
  kCancelled,  ///< the stop callback asked
};
std::string_view finish_reason_name(FinishReason reason);

struct GenerateStats {
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;  ///< of the prompt, found in the session
  int64_t output_tokens = 0;
  double prefill_s = 0.0;
  double decode_s = 0.0;         ///< of the tokens after the first
  offload::StoreCounters store;  ///< what this answer added to the store's counters

  double prefill_tokens_per_s() const;  ///< 0 if nothing was measured
  double decode_tokens_per_s() const;
  double expert_hit_rate() const;  ///< hits ÷ all wanted; 1 if none was wanted
};

struct GenerateResult {
  FinishReason finish = FinishReason::kStop;
  std::vector<int32_t> ids;  ///< output tokens, the end token included
  std::string thinking;      ///< text before </think>
  std::string answer;        ///< text after it, or all of it if the model did not think
  GenerateStats stats;
};

struct GenerateCallbacks {
  std::function<void(const TokenEvent&)> on_token = {};
  std::function<void(int64_t done, int64_t total)> on_prefill = {};  ///< after every chunk of the prompt
  std::function<bool()> stop = {};                                   ///< asked at every layer
};

/// Answers `prompt` (whole conversation as ids), reusing what `session` holds of it. On return the session holds prompt
/// and output. Throws quant::Error(kUsage) if the prompt is empty, longer than the model's context or has an id out of
/// range.
GenerateResult generate(Engine& engine, Session& session, std::span<const int32_t> prompt,
                        const GenerateOptions& options, const GenerateCallbacks& callbacks = {});

}  // namespace moraine::runtime
