// Everything that the program does with a model directory, on dense models: no experts, nothing to stream.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "cpu/head_cache.h"
#include "support/captured_console.h"
#include "support/model_run.h"
#include "support/oracle_case.h"
#include "support/small_tokenizer.h"
#include "support/temp_dir.h"
#include "tools/benchmark.h"
#include "tools/converter.h"
#include "tools/engine_setup.h"
#include "tools/inspection.h"
#include "tools/verifier.h"

namespace moraine::tools {
namespace {

/// An oracle model with a tokenizer that fits it.
class DenseModel : public ::testing::TestWithParam<const char*> {
 protected:
  DenseModel() {
    const std::filesystem::path oracle = testing::test_data(std::string("oracle/models/") + GetParam());
    std::filesystem::create_directory(model());
    for (const char* name : {"config.json", "model.safetensors"}) {
      std::filesystem::copy_file(oracle / name, model() / name);
    }
    directory_.write("model/tokenizer.json", testing::small_tokenizer_json(runtime::PreTokenizerKind::kQwen2).dump());
  }

  std::filesystem::path model() const { return directory_ / "model"; }
  std::filesystem::path pack() const { return directory_ / "pack"; }

  void convert() {
    ConvertOptions options;
    options.source = model();
    options.destination = pack();
    Converter(options).run({});
  }

  std::unique_ptr<runtime::Engine> open(const std::filesystem::path& directory) {
    EngineOptions options;
    options.model = directory;
    options.threads = 2;
    return open_engine(options, console_.console(), [this](runtime::EngineParts& parts) {
      parts.dense = timed(std::move(parts.dense), times_);
      parts.expert_backend = timed(std::move(parts.expert_backend), times_);
    });
  }

  const testing::TempDir directory_;
  testing::CapturedConsole console_;
  LayerTimes times_;
};

TEST_P(DenseModel, ADirectoryAndItsPackGiveTheReferencesLogits) {
  convert();
  const VerifyReport report = verify_model(pack(), {});
  EXPECT_EQ(report.fault_count, 0u) << (report.faults.empty() ? "" : report.faults[0]);
  EXPECT_EQ(report.records, 0u);
  EXPECT_GT(report.tensors, 20u);
  EXPECT_EQ(verify_model(model(), {}).fault_count, 0u);

  const testing::OracleCase oracle(GetParam());
  const std::vector<int32_t> ids = oracle.ints("case2.ids");
  for (const std::filesystem::path& directory : {model(), pack()}) {
    const auto engine = open(directory);
    EXPECT_EQ(engine->store().slot_count(), 0);
    runtime::Session session = engine->new_session();
    const testing::ModelRun run = testing::run_ids(engine->transformer(), session.cache(), ids, 512);
    testing::expect_logits(run.logits, oracle.floats("case2.logits"), 512, 2e-3);
  }
}

TEST_P(DenseModel, Generates) {
  const auto engine = open(model());
  runtime::Session session = engine->new_session();
  const std::vector<int32_t> prompt = {5, 6, 7};
  const runtime::GenerateOptions options{.max_tokens = 8, .sampling = {.temperature = 0.0}};
  EXPECT_FALSE(runtime::generate(*engine, session, prompt, options).ids.empty());
}

TEST_P(DenseModel, InspectionHasNoExperts) {
  const Inspection inspection = inspect_model(model(), {});
  EXPECT_EQ(inspection.expert_count, 0u);
  EXPECT_EQ(inspection.expert_bytes, 0u);
  const runtime::ModelConfig& config = inspection.config;
  cpu::HeadCache cache(config.num_hidden_layers, config.num_key_value_heads, config.head_dim, cpu::CacheType::kF32);
  cache.reserve(cpu::HeadCache::kPageTokens);
  EXPECT_EQ(inspection.kv_bytes_per_token * cpu::HeadCache::kPageTokens, cache.size_bytes());
  // The one embedding of the tied model is its head, too, and read for every token.
  const uint64_t embedding_bytes = 512 * 128 * 2;
  EXPECT_EQ(inspection.bytes_per_token, inspection.resident_bytes - (config.tie_word_embeddings ? 0 : embedding_bytes));
  const std::string text = inspection_text(inspection, false);
  EXPECT_NE(text.find("kv heads, head_dim 16"), std::string::npos) << text;
  EXPECT_EQ(text.find("routed"), std::string::npos) << text;
  EXPECT_TRUE(inspection_json(inspection, false)["config"].contains("head_dim"));
}

TEST_P(DenseModel, BenchCountsWhatItReads) {
  const auto engine = open(model());
  const std::vector<BenchRow> rows =
      run_benchmark(*engine, times_, 2, {.prompt_tokens = {20}, .decode_tokens = 3, .depths = {5}, .repetitions = 1});
  ASSERT_EQ(rows.size(), 2u);
  for (const BenchRow& row : rows) {
    EXPECT_GT(row.tokens_per_s.median, 0.0);
    EXPECT_EQ(row.bytes_read, 0.0);
    EXPECT_GT(row.seconds[LayerKind::kAttention], 0.0);
    EXPECT_GT(row.seconds[LayerKind::kDenseFfn], 0.0);
    EXPECT_EQ(row.seconds[LayerKind::kRouted], 0.0);
  }
  const double resident = static_cast<double>(engine->model().resident_bytes());
  const double embedding = 512.0 * 128 * 2;
  const double once = engine->config().tie_word_embeddings ? resident : resident - embedding;
  EXPECT_NEAR(total_of(rows[1].costs).weight_bytes, once + 128 * 2, 1.0);
}

INSTANTIATE_TEST_SUITE_P(Oracle, DenseModel, ::testing::Values("qwen2", "llama3"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace moraine::tools
