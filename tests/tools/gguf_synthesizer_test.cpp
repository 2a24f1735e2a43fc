#include "tools/gguf_synthesizer.h"

#include <gtest/gtest.h>

#include "runtime/generator.h"
#include "support/captured_console.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/test_data.h"
#include "tools/engine_setup.h"
#include "tools/verifier.h"

namespace moraine::tools {
namespace {

using quant::DType;
using testing::TempDir;

class GgufSynthesizerTest : public ::testing::Test {
 protected:
  SynthOptions options(const char* name) const {
    SynthOptions options;
    options.destination = directory_ / name;
    options.tokenizer_source = testing::tiny_r1();
    options.preset = "tiny";
    options.dense_layers = 1;
    options.moe_layers = 2;
    options.vocab_size = 1000;
    options.threads = 2;
    return options;
  }

  TempDir directory_;
};

TEST_F(GgufSynthesizerTest, WritesAFileThatVerifiesAndGenerates) {
  for (const DType experts : {DType::kQ4_K, DType::kQ8_0, DType::kBF16}) {
    SynthOptions wanted = options("model.gguf");
    wanted.experts = experts;
    wanted.resident = experts == DType::kBF16 ? DType::kBF16 : DType::kQ8_0;
    GgufSynthesizer synthesizer(wanted);
    uint64_t last_bytes = 0;
    synthesizer.run([&](uint64_t done_bytes, uint64_t, const std::string&) { last_bytes = done_bytes; });
    EXPECT_EQ(last_bytes, synthesizer.total_bytes());
    const VerifyReport report = verify_model(wanted.destination, {});
    EXPECT_EQ(report.fault_count, 0u) << (report.faults.empty() ? "" : report.faults[0]);

    testing::CapturedConsole console;
    EngineOptions engine_options;
    engine_options.model = wanted.destination;
    const auto engine = open_engine(engine_options, console.console());
    EXPECT_EQ(engine->config().vocab_size, 1000);
    runtime::Session session = engine->new_session();
    runtime::GenerateOptions generate_options;
    generate_options.max_tokens = 4;
    generate_options.sampling.temperature = 0.0;
    EXPECT_FALSE(
        runtime::generate(*engine, session, engine->raw_prompt("random weights"), generate_options, {}).ids.empty());
    std::filesystem::remove(wanted.destination);
  }
}

TEST_F(GgufSynthesizerTest, WritesDenseModels) {
  for (const char* preset : {"qwen2-7b", "llama-8b"}) {
    SynthOptions wanted = options("dense.gguf");
    wanted.preset = preset;
    wanted.dense_layers = 1;
    wanted.moe_layers = 0;
    GgufSynthesizer(wanted).run({});
    const auto source = runtime::ModelSource::open(wanted.destination);
    const runtime::ModelConfig config = source->config();
    EXPECT_FALSE(config.has_experts());
    EXPECT_GT(runtime::resident_bytes(source->checkpoint(), config), uint64_t{100} << 20);
    std::filesystem::remove(wanted.destination);
  }
}

TEST_F(GgufSynthesizerTest, TheSameOptionsGiveTheSameBytes) {
  GgufSynthesizer(options("a.gguf")).run({});
  SynthOptions again = options("b.gguf");
  again.threads = 1;
  GgufSynthesizer(again).run({});
  EXPECT_EQ(testing::file_content(directory_ / "a.gguf"), testing::file_content(directory_ / "b.gguf"));
}

TEST_F(GgufSynthesizerTest, HasTheTensorsThatOtherProgramsExpect) {
  GgufSynthesizer(options("a.gguf")).run({});
  std::map<std::string, quant::TensorInfo> tensors;
  const quant::Gguf gguf = quant::Gguf::open(directory_ / "a.gguf");
  for (const quant::TensorInfo& tensor : gguf.tensors()) {
    tensors[tensor.name] = tensor;
  }
  using Shape = std::vector<int64_t>;
  EXPECT_EQ(tensors.size(), 3u + 13 + 2 * (10 + 2 + 6));
  EXPECT_EQ(tensors.at("token_embd.weight").dtype, DType::kQ8_0);
  EXPECT_EQ(tensors.at("blk.0.attn_k_b.weight").shape, (Shape{8, 64, 32}));
  EXPECT_EQ(tensors.at("blk.0.attn_v_b.weight").shape, (Shape{8, 32, 64}));
  EXPECT_EQ(tensors.at("blk.0.ffn_gate.weight").shape, (Shape{768, 256}));
  EXPECT_EQ(tensors.at("blk.1.ffn_gate_inp.weight").dtype, DType::kF32);
  EXPECT_EQ(tensors.at("blk.1.exp_probs_b.bias").shape, (Shape{32}));
  EXPECT_EQ(tensors.at("blk.2.ffn_gate_exps.weight").shape, (Shape{32, 128, 256}));
  EXPECT_EQ(tensors.at("blk.2.ffn_gate_exps.weight").dtype, DType::kQ4_K);
  EXPECT_EQ(tensors.at("blk.2.ffn_down_exps.weight").shape, (Shape{32, 256, 128}));
  EXPECT_EQ(tensors.at("blk.2.ffn_down_exps.weight").dtype, DType::kQ4_0);  // rows of 128 are no multiple of 256
}

TEST_F(GgufSynthesizerTest, RefusesWhatItCannotWrite) {
  SynthOptions fp8 = options("a.gguf");
  fp8.experts = DType::kF8E4M3;
  testing::expect_error(quant::ErrorKind::kUsage, {"F8_E4M3"}, [&] { GgufSynthesizer{fp8}; });
  testing::expect_error(quant::ErrorKind::kUsage, {"b.gguf", "exists"}, [&] {
    directory_.write("b.gguf", "");
    GgufSynthesizer{options("b.gguf")};
  });
}

}  // namespace
}  // namespace moraine::tools
