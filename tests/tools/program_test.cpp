// The command line: what is accepted, what is refused with exit code 2, what help says. Nothing here opens a model.

#include "tools/program.h"

#include <gtest/gtest.h>

#include <regex>

#include "quant/json.h"
#include "support/captured_console.h"
#include "support/expect_error.h"
#include "tools/cli_options.h"
#include "tools/version.h"

namespace moraine::tools {
namespace {

using testing::CapturedConsole;

struct Ran {
  int code = 0;
  std::string out;
  std::string err;
};

Ran run(std::vector<const char*> args) {
  args.insert(args.begin(), "moraine");
  CapturedConsole captured;
  const int code = run_program(static_cast<int>(args.size()), args.data(), captured.console());
  return {code, captured.out(), captured.err()};
}

TEST(Program, WrongUsageIsOneLineOnStderrAndExitCodeTwo) {
  const std::vector<std::vector<const char*>> wrong = {
      {},
      {"fly"},
      {"run", "--no-such-flag"},
      {"generate", "model"},                            // no prompt
      {"generate", "model", "-p", "a", "--file", "b"},  // two prompts
      {"generate", "-p", "a"},                          // no model
      {"run", "--threads", "0"},
      {"run", "--threads", "many"},
      {"run", "--ram-budget", "6 apples"},
      {"run", "--reader", "mmap"},
      {"run", "--experts", "Q9_X"},
      {"run", "--experts", "F32"},
      {"run", "--thinking", "loud"},
      {"run", "--max-tokens", "0"},
      {"run", "--seed", "-1"},
      {"convert", "a"},
      {"eval"},
      {"eval", "logits", "model", "--out", "f.npy"},  // no ids
      {"eval", "tasks", "model"},
      {"eval", "tasks", "model", "f.jsonl", "--limit", "-3"},
  };
  for (const auto& args : wrong) {
    const Ran ran = run(args);
    std::string line;
    for (const char* arg : args) line += std::string(" ") + arg;
    EXPECT_EQ(ran.code, 2) << line;
    EXPECT_EQ(ran.out, "") << line;
    EXPECT_TRUE(ran.err.starts_with("moraine: ")) << line << ": " << ran.err;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << line << ": " << ran.err;
  }
}

TEST(Program, SamplingValuesOutOfRangeAreRefusedByName) {
  SamplingFlags flags;
  flags.temperature = -1.0;
  flags.top_p = 1.5;
  testing::expect_error(quant::ErrorKind::kUsage, {"temperature", "top-p"}, [&] { (void)flags.merged_with({}); });
}

TEST(Program, FlagsThatWereNotGivenLeaveTheModelsDefaults) {
  SamplingFlags flags;
  flags.seed = 7;
  runtime::SamplingOptions defaults;
  defaults.temperature = 0.25;
  const runtime::GenerateOptions options = flags.merged_with(defaults);
  EXPECT_EQ(options.sampling.temperature, 0.25);
  EXPECT_EQ(options.sampling.seed, 7u);
}

TEST(Program, HelpGoesToStdoutAndEndsWithExamplesAndExitCodes) {
  const std::vector<std::vector<const char*>> pages = {{"--help"},
                                                       {"run", "--help"},
                                                       {"generate", "--help"},
                                                       {"eval", "--help"},
                                                       {"eval", "logits", "-h"},
                                                       {"eval", "tasks", "--help"},
                                                       {"inspect", "--help"},
                                                       {"verify", "--help"},
                                                       {"convert", "--help"}};
  for (const auto& page : pages) {
    const Ran ran = run(page);
    EXPECT_EQ(ran.code, 0);
    EXPECT_EQ(ran.err, "");
    EXPECT_NE(ran.out.find("EXAMPLES\n"), std::string::npos) << ran.out;
    EXPECT_NE(ran.out.find("EXIT CODES\n"), std::string::npos) << ran.out;
  }
}

TEST(Program, HelpStatesUnitAndDefaultOfEveryOptionWithAValue) {
  const std::string help = run({"generate", "--help"}).out;
  for (const char* name : {"--ram-budget SIZE", "--threads N", "--max-tokens N", "--temp T", "--top-p P", "--top-k K",
                           "--min-p P", "--seed S", "--experts TYPE", "--reader NAME"}) {
    const size_t at = help.find(name);
    ASSERT_NE(at, std::string::npos) << name << " in " << help;
    const size_t given = help.find("(default", at);
    ASSERT_NE(given, std::string::npos) << name;
    const size_t next = help.find("\n  --", at);
    EXPECT_LT(given, next) << name << " has no default";
  }
}

TEST(Program, VersionNamesVersionInstructionSetAndGpu) {
  const Ran ran = run({"--version"});
  EXPECT_EQ(ran.code, 0);
  EXPECT_TRUE(std::regex_match(ran.out, std::regex("moraine " + std::string(kVersion) +
                                                   "\nCPU code: (amx|avx512|avx2|scalar)\nGPU device: .+\n")))
      << ran.out;
}

TEST(Program, VersionIsThatOfTheProject) {
  const std::string cmake = quant::read_text(MORAINE_SOURCE_DIR "/CMakeLists.txt", 1 << 20);
  EXPECT_NE(cmake.find("project(moraine VERSION " + std::string(kVersion) + " "), std::string::npos);
}

TEST(Program, EngineFlagsArriveWhereTheyBelong) {
  CLI::App app("test");
  EngineOptions options;
  add_engine_flags(app, options, ModelArgument::kOptional);
  app.parse("some/model --ram-budget 6GiB --threads 3 --experts q4_k --reader pread --no-prefetch --reference");
  EXPECT_EQ(options.model, "some/model");
  EXPECT_EQ(options.ram_budget_bytes, uint64_t{6} << 30);
  EXPECT_EQ(options.threads, 3);
  EXPECT_EQ(options.experts, quant::DType::kQ4_K);
  EXPECT_EQ(options.reader, offload::ReaderKind::kPread);
  EXPECT_FALSE(options.prefetch);
  EXPECT_TRUE(options.reference);
}

TEST(Program, WithoutFlagsEverythingIsLeftToTheProgram) {
  CLI::App app("test");
  EngineOptions options;
  add_engine_flags(app, options, ModelArgument::kOptional);
  app.parse("");
  EXPECT_TRUE(options.model.empty());
  EXPECT_EQ(options.ram_budget_bytes, std::nullopt);
  EXPECT_EQ(options.experts, std::nullopt);
  EXPECT_EQ(options.reader, offload::ReaderKind::kAuto);
  EXPECT_TRUE(options.prefetch);
  EXPECT_FALSE(options.reference);
}

}  // namespace
}  // namespace moraine::tools
