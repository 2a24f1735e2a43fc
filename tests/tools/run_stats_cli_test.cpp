// `run --stats` of the built program while it answers: on a terminal and through pipes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/process.h"
#include "support/test_data.h"

namespace moraine::tools {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

testing::ProcessOptions question(bool stats, bool terminal, const std::vector<std::string>& flags) {
  testing::ProcessOptions options;
  options.args = {MORAINE_BINARY_DIR "/bin/moraine", "run", testing::tiny_r1().string(), "-p", "What is io_uring?"};
  options.args.insert(options.args.end(), flags.begin(), flags.end());
  if (stats) options.args.push_back("--stats");
  options.environment = {{"NO_COLOR", "1"}};
  options.terminal = terminal;
  return options;
}

testing::ProcessResult answer(bool stats, bool terminal) {
  return run_process(question(stats, terminal, {"--temp", "0"}));
}

TEST(RunStats, TheLastRowIsTakenWhileAnsweringAndGivenBack) {
  const testing::ProcessResult result = answer(true, true);
  EXPECT_EQ(result.exit_code, 0);
  const size_t taken = result.out.find("\033[1;23r"), given = result.out.find("\033[r");
  ASSERT_NE(taken, std::string::npos) << result.out;
  ASSERT_NE(given, std::string::npos) << result.out;
  EXPECT_LT(taken, given);
  const size_t counters = result.out.find("stall_ms_per_token");
  EXPECT_GT(counters, given) << "the terminal is whole again when the counters come";
  EXPECT_THAT(answer(false, true).out, Not(HasSubstr("\033[1;23r"))) << "nobody asked";
}

TEST(RunStats, AHangUpGivesTheLastRowBack) {
  // Long and slow enough not to be over before.
  testing::Process process(
      question(true, true, {"--temp", "1.5", "--top-p", "1", "--max-tokens", "8000", "--reference", "--threads", "1"}));
  process.wait_for("\033[1;23r");
  process.signal(SIGHUP);
  const testing::ProcessResult result = process.wait();
  EXPECT_EQ(result.exit_code, 129);
  EXPECT_THAT(result.out, HasSubstr("\033[r"));
}

TEST(RunStats, PipesSeeNoTerminalsCommands) {
  const testing::ProcessResult with = answer(true, false), without = answer(false, false);
  EXPECT_EQ(with.exit_code, 0);
  EXPECT_EQ(with.out, without.out);
  EXPECT_THAT(with.err, HasSubstr("stall_ms_per_token"));
  EXPECT_THAT(with.err, Not(HasSubstr("\033")));
}

}  // namespace
}  // namespace moraine::tools
