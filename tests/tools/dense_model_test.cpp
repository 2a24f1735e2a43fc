// Everything that the program does with a model directory, on dense models: no experts; FFNs are streamed if they must
// be.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

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
#include "tools/model_plan.h"
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

  std::unique_ptr<runtime::Engine> open(const std::filesystem::path& directory,
                                        std::optional<uint64_t> ram_budget_bytes = {},
                                        std::optional<quant::DType> resident = {}) {
    EngineOptions options;
    options.model = directory;
    options.threads = 2;
    options.ram_budget_bytes = ram_budget_bytes;
    options.resident = resident;
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

TEST_P(DenseModel, StreamedAtAnyBudgetItComputesTheSameBits) {
  convert();
  const std::vector<int32_t> ids = testing::OracleCase(GetParam()).ints("case2.ids");
  const auto logits_of = [&](runtime::Engine& engine, int32_t rows_per_step) {
    runtime::Session session = engine.new_session();
    return testing::run_ids(engine.transformer(), session.cache(), ids, rows_per_step).logits;
  };
  for (const std::optional<quant::DType> resident : {std::optional<quant::DType>(), {quant::DType::kQ8_0}}) {
    const std::vector<float> expected = logits_of(*open(model(), {}, resident), 5);
    for (const std::filesystem::path& directory : {model(), pack()}) {
      const auto all = open(directory, uint64_t{1} << 30, resident);
      const auto layers = static_cast<uint64_t>(all->config().num_hidden_layers);
      EXPECT_EQ(all->store().slot_count(), static_cast<int>(layers));
      EXPECT_LT(all->model().resident_bytes(), open(directory, {}, resident)->model().resident_bytes());
      EXPECT_EQ(logits_of(*all, 5), expected);
      const uint64_t slot_bytes = all->store().budget_bytes() / layers;
      for (const uint64_t slots : {layers / 2, uint64_t{1}}) {
        const auto engine = open(directory, slots * slot_bytes, resident);
        EXPECT_EQ(engine->store().slot_count(), static_cast<int>(slots));
        EXPECT_EQ(logits_of(*engine, 5), expected) << slots;
        EXPECT_GT(engine->store().counters().misses, 0u);
      }
    }
  }
}

TEST_P(DenseModel, LessThanOneLayersFfnIsRefusedWithNumbers) {
  try {
    open(model(), 1000);
    FAIL();
  } catch (const quant::Error& error) {
    EXPECT_EQ(error.kind(), quant::ErrorKind::kNotEnough);
    EXPECT_NE(std::string(error.what()).find("at least"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("1000"), std::string::npos) << error.what();
  }
}

TEST_P(DenseModel, ThePlanSaysWhatTheEngineHoldsAndReads) {
  MachineSpec machine;
  machine.room.ram_bytes = uint64_t{4} << 30;
  machine.limits = {.compute = {.dram_read_gb_per_s = 30.0}, .disk_gb_per_s = 1.0};
  const PlannedModel model = open_planned_model(this->model(), {}, {});
  const auto layers = static_cast<uint64_t>(model.config().num_hidden_layers);
  const ModelPlan whole = plan_model(model, machine, {}, 512);
  EXPECT_FALSE(whole.placed.form.streams_ffns());
  EXPECT_EQ(open(this->model())->store().slot_count(), static_cast<int>(whole.memory().slot_count));
  const uint64_t slot_bytes =
      plan_model(model, machine, {.experts_budget_bytes = uint64_t{1} << 30}, 512).memory().slot_bytes;
  for (const uint64_t slots : {uint64_t{1}, layers - 1, layers}) {
    const ModelPlan plan = plan_model(model, machine, {.experts_budget_bytes = slots * slot_bytes}, 512);
    ASSERT_TRUE(plan.placed.form.streams_ffns());
    const auto engine = open(this->model(), slots * slot_bytes);
    EXPECT_EQ(engine->store().slot_count(), static_cast<int>(plan.memory().slot_count));
    EXPECT_EQ(engine->model().resident_bytes(), plan.placed.form.shape->resident_bytes());
    const std::vector<int32_t> ids(16, 7);
    const auto decode_all = [&] {
      runtime::Session session = engine->new_session();
      testing::run_ids(engine->transformer(), session.cache(), ids, 1);
    };
    decode_all();
    const uint64_t before = engine->store().counters().bytes_read;
    decode_all();
    const auto tokens = static_cast<double>(ids.size());
    const double read = static_cast<double>(engine->store().counters().bytes_read - before) / tokens;
    // What is read ahead at the end of either run belongs to the next token; a read is whole pages of each tensor.
    const double tolerance =
        3.0 * plan.placed.form.read_bytes_per_record / tokens + static_cast<double>(layers) * 3 * 8192;
    EXPECT_LE(read, plan.decode->disk_bytes + tolerance) << slots << " slots";
    if (slots != layers - 1) {  // with so few layers, one may be found though nothing promises it
      EXPECT_GE(read, plan.decode->disk_bytes - tolerance) << slots << " slots";
    }
  }
}

TEST_P(DenseModel, AWrongByteOfAStreamedPackIsNoticed) {
  convert();
  const auto engine = open(pack(), uint64_t{1} << 30);
  const offload::Extent extent = engine->experts().records->extents({1, 0})[1];
  {
    std::fstream file(engine->experts().records->files()[static_cast<size_t>(extent.file)],
                      std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(extent.offset + extent.size_bytes / 2));
    file.put(static_cast<char>(0x5a));
  }
  runtime::Session session = engine->new_session();
  const std::vector<int32_t> ids = {5, 6, 7};
  try {
    testing::run_ids(engine->transformer(), session.cache(), ids, 3);
    FAIL();
  } catch (const quant::Error& error) {
    EXPECT_EQ(error.kind(), quant::ErrorKind::kChecksum);
    EXPECT_NE(std::string(error.what()).find("model.layers.1.mlp.up_proj.weight"), std::string::npos) << error.what();
  }
}

TEST_P(DenseModel, BenchCountsStreamedFfnsAsRouted) {
  const auto whole = open(model());
  const double resident_bytes = total_of(ModelCosts(whole->model(), whole->experts().layouts).decode(0.0)).weight_bytes;
  const auto engine = open(model(), uint64_t{1} << 30);
  const StepCosts costs = ModelCosts(engine->model(), engine->experts().layouts).decode(0.0);
  EXPECT_NEAR(total_of(costs).weight_bytes, resident_bytes, 1.0);
  EXPECT_EQ(costs[LayerKind::kDenseFfn].weight_bytes, 0.0);
  EXPECT_GT(costs[LayerKind::kRouted].weight_bytes, 0.0);
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
