#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/engine.h"
#include "tools/console.h"
#include "tools/engine_options.h"

namespace moraine::tools {

struct EvalLogitsOptions {
  EngineOptions engine;
  std::string ids_text;  ///< "0,3,17"; empty: from ids_file
  std::filesystem::path ids_file;
  std::filesystem::path out_file;     ///< .npy, float32 [tokens, vocab_size]
  std::filesystem::path routes_file;  ///< .json with the router's choices; may be empty
  bool json = false;
};

/// Token ids separated by commas, white space or both; square brackets around them are allowed. `where` is for
/// messages. Throws quant::Error(kUsage) for anything else, for no ids at all and for ids outside [0, vocab_size).
std::vector<int32_t> parse_token_ids(std::string_view text, int64_t vocab_size, const std::filesystem::path& where);

/// Sees every router decision of the steps it observes.
class RouteRecorder final : public runtime::StepObserver {
 public:
  explicit RouteRecorder(const runtime::ModelConfig& config);
  void routed(int layer, std::span<const runtime::RoutedExpert> chosen) override;
  /// {"num_experts_per_tok": K, "layers": {"1": {"topk": [[K ids] per token], "weight": [[K weights] per token]}, …}}
  std::string json() const;

 private:
  int64_t num_experts_per_tok_;
  std::vector<std::vector<runtime::RoutedExpert>> layers_;  // [num_hidden_layers][tokens × num_experts_per_tok]
};

/// Runs `moraine eval logits`. Returns the exit code.
int eval_logits(const EvalLogitsOptions& options, Console& console);

}  // namespace moraine::tools
