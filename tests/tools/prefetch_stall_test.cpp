// What prediction saves on tiny-r1 when every record comes 5 ms late, and that it changes no token.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include "cpu/cpu_backend.h"
#include "offload/host_arena.h"
#include "offload/open_reader.h"
#include "runtime/engine.h"
#include "runtime/weight_loader.h"
#include "support/faulty_reader.h"
#include "support/test_data.h"
#include "tools/feed_tokens.h"

namespace moraine::tools {
namespace {

constexpr std::chrono::milliseconds kReadDelay{5};
/// A layer of tiny-r1 takes microseconds. As on a large model, it takes about as long as a read here.
constexpr std::chrono::milliseconds kLayerTime{7};

struct SlowLayers final : runtime::StepObserver {
  void routed(int, std::span<const runtime::RoutedExpert>) override { std::this_thread::sleep_for(kLayerTime); }
};

struct Outcome {
  std::vector<int32_t> tokens;
  offload::StoreCounters counters;    // of the whole run
  offload::StoreCounters after_half;  // of its second half
};

Outcome decode(bool prefetch, int token_count) {
  const quant::Checkpoint checkpoint = quant::Checkpoint::open(testing::tiny_r1());
  const auto config = runtime::ModelConfig::from_directory(testing::tiny_r1());
  runtime::EngineParts parts{.text = runtime::ModelText::from_directory(testing::tiny_r1(), config),
                             .model = std::make_shared<runtime::Model>(runtime::load_model(checkpoint, config)),
                             .experts = runtime::open_expert_source(checkpoint, config, std::nullopt),
                             .store = nullptr,
                             .dense = nullptr,
                             .expert_backend = nullptr};
  const auto& records = parts.experts.records;
  const uint64_t half = records->experts().size() / 2;
  parts.store = std::make_unique<offload::ExpertStore>(
      records,
      offload::StoreOptions{.budget_bytes = half * offload::HostArena::slot_bytes_for(records->max_record_bytes()),
                            .prefetch = prefetch},
      4,
      std::make_unique<testing::DelayingReader>(offload::open_reader(offload::ReaderKind::kAuto, records->files(), {}),
                                                kReadDelay));
  const auto backend = std::make_shared<cpu::CpuBackend>(parts.model, cpu::CpuOptions{.threads = 1});
  parts.dense = backend;
  parts.expert_backend = backend;
  runtime::Engine engine(std::move(parts));

  runtime::Session session = engine.new_session();
  std::vector<float> logits(static_cast<size_t>(config.vocab_size));
  SlowLayers observer;
  Outcome outcome{.tokens = {300}, .counters = {}, .after_half = {}};
  offload::StoreCounters at_half;
  for (int i = 0; i < token_count; ++i) {
    if (i == token_count / 2) at_half = engine.store().counters();
    feed_tokens(engine, session.cache(), {&outcome.tokens.back(), 1}, LogitRows::kLast, logits, &observer);
    // The i-th likeliest in turn, so that the text does not go round in a circle.
    std::vector<int32_t> order(logits.size());
    for (size_t id = 0; id < order.size(); ++id) order[id] = static_cast<int32_t>(id);
    const auto chosen = order.begin() + i % 20;
    std::nth_element(order.begin(), chosen, order.end(), [&](int32_t a, int32_t b) {
      const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
      return x != y ? x > y : a < b;
    });
    outcome.tokens.push_back(*chosen);
  }
  outcome.counters = engine.store().counters();
  outcome.after_half = outcome.counters - at_half;
  return outcome;
}

TEST(PrefetchStall, PredictionSavesWaitingAndChangesNoToken) {
  constexpr int kTokens = 24;
  const Outcome without = decode(false, kTokens);
  const Outcome with = decode(true, kTokens);
  EXPECT_EQ(with.tokens, without.tokens);
  const double late_share = static_cast<double>(with.after_half.stall_us) /
                            static_cast<double>(std::max<uint64_t>(without.after_half.stall_us, 1));
  RecordProperty("stall_share_of_second_half", std::to_string(late_share));
  const double share = static_cast<double>(with.counters.stall_us) /
                       static_cast<double>(std::max<uint64_t>(without.counters.stall_us, 1));
  RecordProperty("stall_share", std::to_string(share));
  RecordProperty("recall", std::to_string(static_cast<double>(with.counters.hinted_wanted) /
                                          static_cast<double>(with.counters.wanted_with_hint)));
  // Of the second half, the hint budget has learnt.
  EXPECT_LE(late_share, 0.6);
  EXPECT_LE(share, 0.6) << without.counters.stall_us << " → " << with.counters.stall_us << " µs; recall "
                        << with.counters.hinted_wanted << " of " << with.counters.wanted_with_hint;
}

}  // namespace
}  // namespace moraine::tools
