// What the policies would have hit on the same trace of wants.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "offload/expert_cache.h"
#include "offload/lfru_policy.h"
#include "offload/lru_policy.h"

namespace moraine::offload {
namespace {

constexpr int kLayers = 8, kExperts = 64, kTopK = 8;

struct Step {
  std::vector<ExpertId> wanted;
  bool in_scan = false;
};

/// Tokens whose experts follow Zipf's law (exponent 0.8), in an order of fame of each layer's own that changes a little
/// every 100 tokens; after every 500 tokens, a long prompt of two chunks that wants everything.
std::vector<Step> zipf_with_scans(int tokens) {
  std::mt19937 random(7);
  std::vector<std::vector<int>> fame(kLayers, std::vector<int>(kExperts));  // [layer][rank] → expert
  for (std::vector<int>& experts : fame) {
    std::iota(experts.begin(), experts.end(), 0);
    std::shuffle(experts.begin(), experts.end(), random);
  }
  std::vector<double> weights;
  for (int rank = 1; rank <= kExperts; ++rank) weights.push_back(std::pow(rank, -0.8));
  std::discrete_distribution<size_t> rank(weights.begin(), weights.end());
  std::vector<Step> trace;
  for (int token = 1; token <= tokens; ++token) {
    for (int layer = 0; layer < kLayers; ++layer) {
      std::vector<int>& experts = fame[static_cast<size_t>(layer)];
      if (token % 100 == 0) std::swap(experts[random() % kExperts], experts[random() % 8]);
      Step step;
      while (step.wanted.size() < kTopK) {
        const ExpertId id{layer, experts[rank(random)]};
        if (std::find(step.wanted.begin(), step.wanted.end(), id) == step.wanted.end()) step.wanted.push_back(id);
      }
      trace.push_back(step);
    }
    for (int i = 0; token % 500 == 0 && i < 2 * kLayers; ++i) {
      Step scan{.wanted = {}, .in_scan = true};
      for (int expert = 0; expert < kExperts; ++expert) scan.wanted.push_back({i % kLayers, expert});
      trace.push_back(scan);
    }
  }
  return trace;
}

/// Share of wants found in RAM, of decoded tokens or of scans.
double hit_rate(const std::vector<Step>& trace, int slots, std::unique_ptr<EvictionPolicy> policy, bool of_scans) {
  ExpertCache cache(slots, std::move(policy));
  int hits = 0, wants = 0;
  for (const Step& step : trace) {
    for (const ExpertId id : step.wanted) {
      cache.wanted(id, step.in_scan);
      const bool hit = cache.find(id) >= 0;
      if (step.in_scan == of_scans) {
        ++wants;
        hits += hit ? 1 : 0;
      }
      if (!hit) cache.loaded(cache.take(id));
    }
  }
  return static_cast<double>(hits) / wants;
}

TEST(EvictionTrace, FrequencyBeatsRecencyAtEverySize) {
  const std::vector<Step> trace = zipf_with_scans(2000);
  for (const int slots : {96, 192, 320}) {  // of 512
    const double lru = hit_rate(trace, slots, std::make_unique<LruPolicy>(slots), false);
    const double lfru = hit_rate(trace, slots, std::make_unique<LfruPolicy>(slots), false);
    RecordProperty("slots_" + std::to_string(slots), std::to_string(lru) + " → " + std::to_string(lfru));
    EXPECT_GT(lfru, lru + 0.02) << slots;
  }
}

TEST(EvictionTrace, ScansFindWhatFits) {
  const std::vector<Step> trace = zipf_with_scans(1000);
  constexpr int kSlots = 192;
  EXPECT_LT(hit_rate(trace, kSlots, std::make_unique<LruPolicy>(kSlots), true), 0.25);
  EXPECT_GT(hit_rate(trace, kSlots, std::make_unique<LfruPolicy>(kSlots), true), 0.35);
}

}  // namespace
}  // namespace moraine::offload
