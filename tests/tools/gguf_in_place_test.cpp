// GGUF files of tiny-r1 with experts in the block formats of published files, run in place: they say what the pack of
// the same types says, as closely to the model as the format allows.

#include <gtest/gtest.h>

#include <fstream>

#include "quant/json.h"
#include "runtime/generator.h"
#include "support/captured_console.h"
#include "support/temp_dir.h"
#include "support/test_data.h"
#include "tools/converter.h"
#include "tools/engine_setup.h"
#include "tools/eval_kl.h"
#include "tools/gguf_exporter.h"
#include "tools/inspection.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using quant::DType;

/// Prompts and answers of the oracle's tasks, as docs/benchmarks.md takes them: the only kind of text that tiny-r1
/// knows.
std::string tasks_text() {
  std::ifstream lines(testing::test_data("oracle/tasks.jsonl"));
  std::string text;
  for (std::string line; std::getline(lines, line);) {
    const quant::Json task = quant::parse_json(line, "tasks.jsonl");
    text += task["prompt"].get<std::string>() + "\n" + task["answer"].get<std::string>() + "\n";
  }
  return text;
}

class GgufInPlace : public ::testing::Test {
 protected:
  /// tiny-r1 as a GGUF file: experts as said, everything else as F32, which is what its F8_E4M3 means.
  fs::path exported(DType experts) const {
    GgufExportOptions options;
    options.source = testing::tiny_r1();
    options.destination = directory_ / "model.gguf";
    options.experts = experts;
    options.resident = DType::kF32;
    options.threads = 2;
    GgufExporter(options).run({});
    return options.destination;
  }

  fs::path pack_of(const fs::path& source, const char* name, std::optional<DType> experts) const {
    ConvertOptions options;
    options.source = source;
    options.destination = directory_ / name;
    options.experts = experts;
    options.threads = 2;
    Converter(options).run({});
    return options.destination;
  }

  /// What `eval kl` says of the two.
  quant::Json compare(const fs::path& model, const fs::path& reference, int64_t tokens, bool precise,
                      bool reference_precise) const {
    EvalKlOptions options;
    options.engine.model = model;
    options.engine.precise = precise;
    options.reference.model = reference;
    options.reference.precise = reference_precise;
    options.file = directory_.write("tasks.txt", tasks_text());
    options.max_tokens = tokens;
    options.json = true;
    testing::CapturedConsole console;
    EXPECT_EQ(eval_kl(options, console.console()), 0);
    quant::Json found = quant::parse_json(console.out(), "stdout");
    ::testing::Test::RecordProperty("kl", found.dump());
    return found;
  }

  static std::vector<int32_t> answer(const fs::path& model) {
    testing::CapturedConsole console;
    EngineOptions options;
    options.model = model;
    options.threads = 2;
    const auto engine = open_engine(options, console.console());
    runtime::Session session = engine->new_session();
    const runtime::GenerateOptions generate{.max_tokens = 24, .sampling = {.temperature = 0.0}};
    return runtime::generate(*engine, session, engine->raw_prompt("12+34="), generate).ids;
  }

  const testing::TempDir directory_;
};

/// A format, and a bound of its mean KL: 1.5 times what docs/benchmarks.md ("Quality of the formats", int8 activations)
/// gives for the whole text, of which a part may be a little harder; for Q8_0, to which it is 1.7 times as hard, 1.75.
struct Format {
  DType experts;
  double most_kl;
};

class GgufInPlaceSlow : public GgufInPlace, public ::testing::WithParamInterface<Format> {};

TEST_P(GgufInPlaceSlow, SaysWhatThePackOfTheSameTypesSays) {
  const fs::path gguf = exported(GetParam().experts);
  const fs::path from_gguf = pack_of(gguf, "from_gguf", std::nullopt);
  const fs::path from_directory = pack_of(testing::tiny_r1(), "from_directory", GetParam().experts);
  EXPECT_EQ(inspect_model(gguf, {}).expert_type, inspect_model(from_directory, {}).expert_type);
  for (const fs::path& pack : {from_gguf, from_directory}) {
    EXPECT_EQ(compare(gguf, pack, 300, false, false)["worst_kl"], 0.0) << pack;
    EXPECT_EQ(answer(gguf), answer(pack)) << pack;
  }
  const quant::Json quality = compare(gguf, testing::tiny_r1(), 2048, false, true);
  EXPECT_GT(quality["mean_kl"], 0.0);
  EXPECT_LT(quality["mean_kl"].get<double>(), GetParam().most_kl) << quality;
}

INSTANTIATE_TEST_SUITE_P(Types, GgufInPlaceSlow,
                         ::testing::Values(Format{DType::kQ8_0, 1.75 * 0.00051}, Format{DType::kQ6_K, 1.5 * 0.00074},
                                           Format{DType::kQ5_K, 1.5 * 0.002}, Format{DType::kQ4_K, 1.5 * 0.005},
                                           Format{DType::kIQ4_XS, 1.5 * 0.005}, Format{DType::kQ3_K, 1.5 * 0.0102},
                                           Format{DType::kQ2_K, 1.5 * 0.0236}),
                         [](const auto& param) { return std::string(quant::dtype_name(param.param.experts)); });

}  // namespace
}  // namespace moraine::tools
