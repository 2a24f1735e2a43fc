// What the policies would have hit on the routing that tiny-r1 itself chose while it solved problems.

#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <vector>

#include "offload/expert_cache.h"
#include "offload/lfru_policy.h"
#include "offload/lru_policy.h"
#include "support/process.h"
#include "support/temp_dir.h"
#include "support/test_data.h"
#include "tools/routing_source.h"
#include "tools/trace_file.h"

namespace moraine::tools {
namespace {

constexpr int kProblems = 60;

/// Decoded tokens of tiny-r1's answers to the first problems of the oracle.
RoutingTrace recorded() {
  const testing::TempDir dir;
  std::ifstream all(testing::test_data("oracle/tasks.jsonl"));
  std::ofstream some(dir / "tasks.jsonl");
  std::string line;
  for (int i = 0; i < kProblems && std::getline(all, line); ++i) some << line << "\n";
  some.close();
  testing::ProcessOptions options;
  options.args = {MORAINE_BINARY_DIR "/bin/moraine",
                  "eval",
                  "tasks",
                  testing::tiny_r1(),
                  dir / "tasks.jsonl",
                  "--trace",
                  dir / "trace.json"};
  const testing::ProcessResult result = run_process(options);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return read_routing(dir / "trace.json");
}

/// Share of wants found in RAM, after a first tenth that fills it.
double hit_rate(const RoutingTrace& trace, int slots, std::unique_ptr<offload::EvictionPolicy> policy) {
  offload::ExpertCache cache(slots, std::move(policy));
  RecordedRouting routing(trace.shape, trace.choices);
  const size_t tokens = routing.token_count(), warm_up = tokens / 10;
  int hits = 0, wants = 0;
  for (size_t token = 0; token < tokens; ++token) {
    const std::span<const int32_t> chosen = routing.next();
    for (size_t i = 0; i < chosen.size(); ++i) {
      const offload::ExpertId id{static_cast<int>(i) / trace.shape.top_k, chosen[i]};
      cache.wanted(id, /*in_scan=*/false);
      const int slot = cache.find(id);
      if (token >= warm_up) ++wants, hits += slot >= 0 ? 1 : 0;
      if (slot >= 0) {
        cache.use(slot);
      } else {
        cache.loaded(cache.take(id));
      }
    }
  }
  return static_cast<double>(hits) / wants;
}

TEST(RecordedEvictionSlow, LfruFindsMoreThanLruOnTinyR1sOwnRouting) {
  const RoutingTrace trace = recorded();
  const int experts = trace.shape.moe_layers * trace.shape.n_experts;
  RecordProperty("tokens", static_cast<int>(trace.choices.size()) / (trace.shape.moe_layers * trace.shape.top_k));
  for (const int percent : {25, 50, 75}) {
    const int slots = experts * percent / 100;
    const double lru = hit_rate(trace, slots, std::make_unique<offload::LruPolicy>(slots));
    const double lfru = hit_rate(trace, slots, std::make_unique<offload::LfruPolicy>(slots));
    RecordProperty("lru_percent_at_" + std::to_string(percent), std::to_string(100.0 * lru));
    RecordProperty("lfru_percent_at_" + std::to_string(percent), std::to_string(100.0 * lfru));
    EXPECT_GT(lfru, lru) << percent << " % of the experts in RAM";
  }
}

}  // namespace
}  // namespace moraine::tools
