// The embedded model against the reference outputs of Hugging Face transformers in tests/data/oracle: the whole real
// path (checkpoint, tokenizer, expert store, CPU backend).

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "cpu/cpu_backend.h"
#include "runtime/engine.h"
#include "runtime/weight_loader.h"
#include "support/model_run.h"
#include "support/oracle_case.h"

namespace moraine {
namespace {

using testing::ModelRun;
using testing::OracleCase;

struct Settings {
  bool reference = false;
  int threads = 2;
  int32_t chunk_rows = 512;
  uint64_t slots = 32 * 7;
};

std::unique_ptr<runtime::Engine> open_tiny_r1(const Settings& settings) {
  const quant::Checkpoint checkpoint = quant::Checkpoint::open(testing::tiny_r1());
  const auto config = runtime::ModelConfig::from_directory(testing::tiny_r1());
  runtime::EngineParts parts{.text = runtime::ModelText::from_directory(testing::tiny_r1(), config),
                             .model = std::make_shared<runtime::Model>(runtime::load_model(checkpoint, config)),
                             .experts = runtime::open_expert_source(checkpoint, config, std::nullopt),
                             .store = nullptr,
                             .dense = nullptr,
                             .expert_backend = nullptr};
  const offload::StoreOptions options{.budget_bytes = settings.slots * parts.experts.records->max_record_bytes()};
  parts.store = std::make_unique<offload::ExpertStore>(parts.experts.records, options, 4);
  const auto backend = std::make_shared<cpu::CpuBackend>(
      parts.model,
      cpu::CpuOptions{.threads = settings.threads, .reference = settings.reference, .max_rows = settings.chunk_rows});
  parts.dense = backend;
  parts.expert_backend = backend;
  return std::make_unique<runtime::Engine>(std::move(parts));
}

ModelRun run_ids(runtime::Engine& engine, std::span<const int32_t> ids, int32_t rows_per_step) {
  runtime::Session session = engine.new_session();
  return testing::run_ids(engine.transformer(), session.cache(), ids, rows_per_step);
}

void expect_parity(const std::string& name, const Settings& settings, int32_t rows_per_step) {
  const OracleCase oracle("tiny-r1/" + name);
  const auto engine = open_tiny_r1(settings);
  const auto vocab = static_cast<size_t>(engine->config().vocab_size);
  const std::vector<int32_t> ids = oracle.ints("ids");
  const ModelRun run = run_ids(*engine, ids, rows_per_step);

  const std::vector<float> expected = oracle.floats("logits");  // all rows, or the last 16
  testing::expect_logits(std::span(run.logits).last(expected.size()), expected, vocab, 2e-3);
  for (size_t layer = 0; layer < run.routes.size(); ++layer) {
    const std::string prefix = fmt::format("layer{}.", layer);
    if (!oracle.has(prefix + "topk")) continue;
    const std::vector<int32_t> topk = oracle.ints(prefix + "topk");
    const std::vector<float> weights = oracle.floats(prefix + "weight");
    ASSERT_EQ(run.routes[layer].size(), topk.size());
    for (size_t i = 0; i < topk.size(); ++i) {
      ASSERT_EQ(run.routes[layer][i].expert, topk[i]) << "layer " << layer << ", position " << i / 4;
      EXPECT_NEAR(run.routes[layer][i].weight, weights[i], 2e-4) << "layer " << layer << ", position " << i / 4;
    }
  }
  for (size_t count = 0; count < run.hiddens.size(); ++count) {
    const std::string hidden = fmt::format("hidden{}", count);
    if (!oracle.has(hidden)) continue;
    const std::vector<float> values = oracle.floats(hidden);
    ASSERT_EQ(run.hiddens[count].size(), values.size());
    double largest = 0.0, worst = 0.0;
    for (size_t i = 0; i < values.size(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(values[i])));
      worst = std::max(worst, std::abs(static_cast<double>(run.hiddens[count][i]) - values[i]));
    }
    EXPECT_LE(worst / largest, 1e-3) << hidden;
  }
}

std::string case_name(const ::testing::TestParamInfo<const char*>& param) {
  return param.param;
}

const auto kWholeCases =
    ::testing::Values("one", "two", "sum", "count", "document", "random17", "random129", "random600");

class Parity : public ::testing::TestWithParam<const char*> {};
TEST_P(Parity, PrefillInChunks) {
  expect_parity(GetParam(), {}, 512);
}
INSTANTIATE_TEST_SUITE_P(Oracle, Parity, kWholeCases, case_name);

class ParitySlow : public ::testing::TestWithParam<const char*> {};
TEST_P(ParitySlow, PrefillInShortChunksWithTheSmallestCache) {
  expect_parity(GetParam(), {.slots = 4}, 48);
}
TEST_P(ParitySlow, TokenByToken) {
  expect_parity(GetParam(), {}, 1);
}
TEST_P(ParitySlow, ScalarReferencePath) {
  expect_parity(GetParam(), {.reference = true}, 512);
}
INSTANTIATE_TEST_SUITE_P(Oracle, ParitySlow, kWholeCases, case_name);

// Beyond YaRN's original context of 1024; token by token would add nothing but time.
class ParityLongSlow : public ::testing::TestWithParam<const char*> {};
TEST_P(ParityLongSlow, PrefillInChunks) {
  expect_parity(GetParam(), {}, 512);
}
// The other form of attention at the same positions: the last rows of the prompt as decoded tokens.
TEST_P(ParityLongSlow, TheEndTokenByToken) {
  const OracleCase oracle(std::string("tiny-r1/") + GetParam());
  const auto engine = open_tiny_r1({});
  const auto vocab = static_cast<size_t>(engine->config().vocab_size);
  const std::vector<int32_t> ids = oracle.ints("ids");
  const std::vector<float> expected = oracle.floats("logits");  // the last 16 rows
  const size_t decoded = expected.size() / vocab, prompt = ids.size() - decoded;
  runtime::Session session = engine->new_session();
  testing::run_ids(engine->transformer(), session.cache(), std::span(ids).first(prompt), 512);
  std::vector<float> logits(expected.size());
  const int32_t first_row = 0;
  for (size_t i = 0; i < decoded; ++i) {
    const runtime::SequenceSlice slice{&session.cache(), static_cast<int64_t>(prompt + i), 0, 1};
    engine->transformer().step({std::span(ids).subspan(prompt + i, 1), std::span(&slice, 1)}, {&first_row, 1},
                               std::span(logits).subspan(i * vocab, vocab));
  }
  testing::expect_logits(logits, expected, vocab, 2e-3);
}
INSTANTIATE_TEST_SUITE_P(Oracle, ParityLongSlow, ::testing::Values("past_yarn_original", "long"), case_name);

TEST(DeterminismSlow, TheSameBitsForAnyThreadCountCacheAndIsa) {
  const std::vector<int32_t> ids = OracleCase("tiny-r1/random129").ints("ids");
  const ModelRun base = run_ids(*open_tiny_r1({}), ids, 64);
  const Settings others[] = {{.threads = 1}, {.slots = 4}, {.threads = 1, .slots = 112}, {.reference = true}};
  for (const Settings& settings : others) {
    EXPECT_EQ(run_ids(*open_tiny_r1(settings), ids, 64).logits, base.logits)
        << "threads " << settings.threads << ", slots " << settings.slots << ", reference " << settings.reference;
  }
}

TEST(DeterminismSlow, ASequenceIsComputedAsIfAlone) {
  const auto engine = open_tiny_r1({});
  const std::vector<int32_t> a = OracleCase("tiny-r1/sum").ints("ids");
  const std::vector<int32_t> b = OracleCase("tiny-r1/random17").ints("ids");
  const auto vocab = static_cast<size_t>(engine->config().vocab_size);
  const ModelRun alone_a = run_ids(*engine, a, 512);
  const ModelRun alone_b = run_ids(*engine, b, 512);

  std::vector<int32_t> both = a;
  both.insert(both.end(), b.begin(), b.end());
  runtime::Session session_a = engine->new_session();
  runtime::Session session_b = engine->new_session();
  const runtime::SequenceSlice slices[] = {
      {&session_a.cache(), 0, 0, static_cast<int32_t>(a.size())},
      {&session_b.cache(), 0, static_cast<int32_t>(a.size()), static_cast<int32_t>(b.size())}};
  std::vector<int32_t> rows(both.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
  std::vector<float> logits(both.size() * vocab);
  engine->transformer().step({both, slices}, rows, logits);
  EXPECT_TRUE(std::equal(alone_a.logits.begin(), alone_a.logits.end(), logits.begin()));
  EXPECT_TRUE(std::equal(alone_b.logits.begin(), alone_b.logits.end(),
                         logits.end() - static_cast<ptrdiff_t>(alone_b.logits.size())));
}

TEST(GreedySlow, AnswersAreTheReferences) {
  const quant::Json cases = quant::read_json(testing::test_data("oracle/tiny-r1/greedy.json"));
  const auto engine = open_tiny_r1({});
  for (const quant::Json& golden : cases) {
    const std::vector<runtime::Message> messages{{"user", golden["prompt"].get<std::string>()}};
    const std::vector<int32_t> prompt = engine->chat_prompt(messages);
    EXPECT_EQ(prompt, golden["prompt_ids"].get<std::vector<int32_t>>());
    const auto expected = golden["output_ids"].get<std::vector<int32_t>>();
    runtime::Session session = engine->new_session();
    const runtime::GenerateOptions options{.max_tokens = static_cast<int64_t>(expected.size()),
                                           .sampling = {.temperature = 0.0}};
    EXPECT_EQ(runtime::generate(*engine, session, prompt, options).ids, expected) << golden["prompt"];
  }
}

}  // namespace
}  // namespace moraine
