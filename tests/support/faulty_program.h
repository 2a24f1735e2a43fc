#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "quant/json.h"
#include "support/process.h"
#include "support/temp_dir.h"
#include "support/test_data.h"

namespace moraine::testing {

/// What tests/offload/fault_shim.cpp is to do; it says what each means. −1: not given.
struct DriveFault {
  std::string kind;
  std::string file = "experts-";
  int skip = -1;
  int times = -1;
  int pass = -1;
  int ms = -1;
};

/// The built program on a pack of the embedded model, with a drive that fails on purpose.
class FaultyProgram : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = std::make_unique<TempDir>();
    const ProcessResult made =
        run_process(program({"convert", tiny_r1().string(), pack().string(), "--experts", "Q8_0"}));
    ASSERT_EQ(made.exit_code, 0) << made.err;
  }
  static void TearDownTestSuite() { shared_.reset(); }

  static std::filesystem::path pack() { return *shared_ / "pack"; }
  static std::filesystem::path expert_file(int layer) {
    return pack() / ("experts-0000" + std::to_string(layer) + ".bin");
  }
  static uint64_t record_bytes() { return std::filesystem::file_size(expert_file(3)) / 32; }

  static ProcessOptions program(std::vector<std::string> args) {
    args.insert(args.begin(), MORAINE_BINARY_DIR "/bin/moraine");
    return {.args = std::move(args)};
  }

  /// Answers a question with room for four experts only, so that it reads until the end.
  static ProcessOptions answer(std::vector<std::string> flags = {}, const std::filesystem::path& model = pack()) {
    std::vector<std::string> args = {"generate",
                                     model.string(),
                                     "-p",
                                     "What is io_uring?",
                                     "--temp",
                                     "0",
                                     "--max-tokens",
                                     "16",
                                     "--json",
                                     "--ram-budget",
                                     std::to_string(4 * record_bytes())};
    args.insert(args.end(), flags.begin(), flags.end());
    return program(std::move(args));
  }

  static std::filesystem::path shim() { return MORAINE_BINARY_DIR "/lib/libmoraine_fault_shim.so"; }
  static ProcessOptions with(const DriveFault& fault, ProcessOptions options) {
    auto& environment = options.environment;
    environment.insert(environment.end(),
                       {{"LD_PRELOAD", shim().string()}, {"FAULT_KIND", fault.kind}, {"FAULT_FILE", fault.file}});
    for (const auto& [name, value] : {std::pair("FAULT_SKIP", fault.skip), std::pair("FAULT_TIMES", fault.times),
                                      std::pair("FAULT_PASS", fault.pass), std::pair("FAULT_MS", fault.ms)}) {
      if (value >= 0) environment.emplace_back(name, std::to_string(value));
    }
    return options;
  }

  static std::vector<int> ids_of(const ProcessResult& result) {
    EXPECT_EQ(result.exit_code, 0) << result.err;
    if (result.exit_code != 0) return {};
    return quant::parse_json(result.out, "stdout").at("ids").get<std::vector<int>>();
  }
  /// Ids of the answer without faults.
  static const std::vector<int>& right_ids() {
    static const std::vector<int> ids = ids_of(run_process(answer()));
    return ids;
  }
  static void expect_right(const ProcessResult& result) { EXPECT_EQ(ids_of(result), right_ids()) << result.err; }

  /// Ended with that exit code, and its last line on stderr is the error and has all `parts`.
  static void expect_clean_error(const ProcessResult& result, int exit_code, const std::vector<std::string>& parts) {
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_EQ(result.out, "");
    const size_t begin = result.err.rfind("moraine: ");
    ASSERT_NE(begin, std::string::npos) << result.err;
    const std::string last = result.err.substr(begin);
    EXPECT_EQ(last.find('\n'), last.size() - 1) << last;
    for (const std::string& part : parts)
      EXPECT_NE(last.find(part), std::string::npos) << part << " is not in " << last;
  }

  TempDir directory_;

 private:
  static inline std::unique_ptr<TempDir> shared_;
};

/// For tests that need the shim: skipped where a sanitizer is in the program, which must be loaded first.
class FaultyDrive : public FaultyProgram {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(shim())) GTEST_SKIP() << "no drive to fail below a program with sanitizers";
  }
};

}  // namespace moraine::testing
