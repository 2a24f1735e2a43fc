#include "tools/stats_json.h"

namespace moraine::tools {

quant::Json counters_json(const offload::StoreCounters& counters) {
  quant::Json json = quant::Json::object();
  counters.visit([&](const char* name, uint64_t value) { json[name] = value; });
  return json;
}

quant::Json stats_json(const runtime::GenerateStats& stats) {
  return {{"reused_tokens", stats.reused_tokens},
          {"prefill_s", stats.prefill_s},
          {"decode_s", stats.decode_s},
          {"prefill_tokens_per_s", stats.prefill_tokens_per_s()},
          {"decode_tokens_per_s", stats.decode_tokens_per_s()},
          {"expert_hit_rate", stats.expert_hit_rate()},
          {"store", counters_json(stats.store)}};
}

std::string json_text(const quant::Json& json) {
  return json.dump(-1, ' ', false, quant::Json::error_handler_t::replace) + "\n";
}

}  // namespace moraine::tools
