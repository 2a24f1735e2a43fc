#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "fuzz/json_mutator.h"
#include "quant/error.h"
#include "runtime/model_config.h"
#include "runtime/rope.h"
#include "runtime/router.h"

/// Arbitrary bytes as config.json: either a config whose promises hold and from which router and rope can be made, or a
/// quant::Error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moraine;
  try {
    const runtime::ModelConfig config =
        runtime::ModelConfig::parse({reinterpret_cast<const char*>(data), size}, "config.json");
    MORAINE_CHECK(config.hidden_size > 0 && config.num_hidden_layers > 0 && config.rope_dim() % 2 == 0);
    MORAINE_CHECK(config.n_routed_experts % config.n_group == 0 && config.topk_group <= config.n_group);
    MORAINE_CHECK(config.softmax_scale() > 0.0);
    const runtime::RopeTable rope(config);
    MORAINE_CHECK(rope.frequencies().size() == static_cast<size_t>(config.rope_dim() / 2));
    MORAINE_CHECK(config.num_attention_heads % config.num_key_value_heads == 0);
    if (!config.has_experts()) return 0;
    const std::vector<float> logits(static_cast<size_t>(config.n_routed_experts));
    std::vector<runtime::RoutedExpert> chosen(static_cast<size_t>(config.num_experts_per_tok));
    runtime::Router(config).route(logits, logits, chosen);
    for (const runtime::RoutedExpert& expert : chosen) {
      MORAINE_CHECK(expert.expert >= 0 && expert.expert < config.n_routed_experts);
    }
  } catch (const quant::Error&) {
    // A refusal is the expected outcome.
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t n_bytes, size_t max_bytes, unsigned seed) {
  return moraine::fuzz::mutate_json_input(data, n_bytes, max_bytes, seed);
}
