#include "runtime/streamed_ffn.h"

#include <gtest/gtest.h>

#include <numeric>

#include "runtime/transformer.h"
#include "support/fake_backend.h"
#include "support/numbered_experts.h"

namespace moraine::runtime {
namespace {

using testing::FakeBackend;
using testing::FakeCache;
using testing::NumberedExperts;
using testing::TempDir;

constexpr int kLayers = 12;

ModelConfig dense_config() {
  ModelConfig config;
  config.attention = AttentionKind::kGrouped;
  config.vocab_size = 32;
  config.hidden_size = 2;
  config.num_hidden_layers = kLayers;
  config.first_k_dense_replace = kLayers;
  return config;
}

/// A dense model whose FFNs add their record's number to every row; `slots` records fit the budget.
struct Rig {
  explicit Rig(int slots, bool prefetch = true) : source(std::make_shared<NumberedExperts>(dir, 0, kLayers, 1)) {
    model.config = dense_config();
    model.layers.resize(kLayers);
    store = std::make_unique<offload::ExpertStore>(
        source,
        offload::StoreOptions{.budget_bytes = static_cast<uint64_t>(slots) * NumberedExperts::kRecordBytes,
                              .prefetch = prefetch,
                              .stuck_after = std::chrono::milliseconds(5000)},
        1);
    transformer =
        std::make_unique<Transformer>(model, backend, backend, *store, std::vector<quant::ExpertLayout>(kLayers));
  }

  void step(const std::vector<int32_t>& tokens, const std::function<bool()>& stop = {}) {
    struct Last final : StepObserver {
      std::vector<float> values;
      bool wants_hidden() const override { return true; }
      void hidden(int, std::span<const float> hidden) override { values.assign(hidden.begin(), hidden.end()); }
    } observer;
    FakeCache cache;
    const SequenceSlice slice{&cache, 0, 0, static_cast<int32_t>(tokens.size())};
    transformer->step({tokens, std::span(&slice, 1)}, {}, {}, stop, &observer);
    float ffns = 0.0f;
    for (int layer = 0; layer < kLayers; ++layer) ffns += NumberedExperts::number_of({layer, 0});
    for (size_t row = 0; row < tokens.size(); ++row) {
      ASSERT_EQ(observer.values[row * 2], static_cast<float>(tokens[row]) + ffns) << row;
    }
  }

  TempDir dir;
  std::shared_ptr<NumberedExperts> source;
  Model model;
  FakeBackend backend{dense_config()};
  std::unique_ptr<offload::ExpertStore> store;
  std::unique_ptr<Transformer> transformer;
};

TEST(StreamedFfn, EveryBudgetGivesEveryRowAllLayers) {
  for (int slots = 1; slots <= kLayers; ++slots) {
    SCOPED_TRACE(slots);
    Rig rig(slots);
    for (const std::vector<int32_t>& tokens : {std::vector<int32_t>{3, 4, 9}, {7}, {1, 2}}) rig.step(tokens);
  }
}

TEST(StreamedFfn, AllButThreeSlotsKeepTheirLayers) {
  EXPECT_EQ(StreamedFfn::kept_layers(12, 12), 12);
  EXPECT_EQ(StreamedFfn::kept_layers(11, 12), 8);
  EXPECT_EQ(StreamedFfn::kept_layers(4, 12), 1);
  EXPECT_EQ(StreamedFfn::kept_layers(3, 12), 0);
  EXPECT_EQ(StreamedFfn::kept_layers(1, 12), 0);
  EXPECT_EQ(StreamedFfn::kept_layers(1, 1), 1);
}

TEST(StreamedFfn, AFixedPartStaysInMemoryThoughTheOrderIsCyclic) {
  for (const int slots : {1, 2, 4, 6, 9, kLayers}) {
    Rig rig(slots);
    for (int i = 0; i < 3; ++i) rig.step({5});
    const offload::StoreCounters before = rig.store->counters();
    constexpr int kSteps = 20;
    for (int i = 0; i < kSteps; ++i) rig.step({5});
    const offload::StoreCounters counts = rig.store->counters() - before;
    // At either end of the count some of the next walk's layers are asked for already: at most all, of which 2 are
    // read.
    EXPECT_NEAR(static_cast<double>(counts.hits + counts.misses), kSteps * kLayers, kLayers);
    // The running layer and those read ahead take turns in what is left.
    const auto fixed = static_cast<int>(StreamedFfn::kept_layers(slots, kLayers));
    EXPECT_GE(counts.hits + kLayers, static_cast<uint64_t>(kSteps * fixed)) << slots << " slots";
    const int64_t most_reads = kSteps * (kLayers - fixed) + 1 + StreamedFfn::kMissesAhead;
    EXPECT_LE(counts.bytes_read, static_cast<uint64_t>(most_reads) * NumberedExperts::kRecordBytes)
        << slots << " slots: nothing is read twice in a walk";
  }
}

TEST(StreamedFfn, WithoutPrefetchNothingIsAskedForAhead) {
  Rig rig(4, /*prefetch=*/false);
  rig.step({5});
  EXPECT_EQ(rig.store->counters().misses, uint64_t{kLayers});
  rig.step({6});
}

TEST(StreamedFfn, AStepLeftEarlyDoesNotDisturbTheNext) {
  for (const int slots : {1, 3, 6}) {
    Rig rig(slots);
    rig.step({5});
    for (const int last : {1, 5, kLayers}) {
      int asked = 0;
      EXPECT_THROW(rig.step({5}, [&] { return ++asked == last; }), StopRequested);
      rig.step({8, 9});
    }
  }
}

TEST(StreamedFfn, ALayerThatCannotBeReadFailsTheStepAndTheNextOneWorks) {
  Rig rig(3);
  rig.source->fail_expert = {4, 0};
  EXPECT_THROW(rig.step({5}), quant::Error);
  rig.source->fail_expert = {-1, -1};
  rig.step({5});
}

}  // namespace
}  // namespace moraine::runtime
