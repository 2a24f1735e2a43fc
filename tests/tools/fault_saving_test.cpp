// The built program while it writes: full disks, and kill -9 at every point where a file changes.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

#include "support/faulty_program.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using testing::Process;
using testing::ProcessOptions;
using testing::ProcessResult;

constexpr int kKilled = 128 + SIGKILL;

class FaultSavingSlow : public testing::FaultyProgram {
 protected:
  fs::path target() const { return directory_ / "target"; }
  ProcessOptions convert() const {
    return program({"convert", testing::tiny_r1().string(), target().string(), "--experts", "Q8_0"});
  }
  fs::path cache() const { return directory_ / "cache"; }
  /// An answer that reads and saves which experts are hot.
  ProcessOptions answer_and_save(std::vector<std::string> flags = {}) const {
    ProcessOptions options = answer(std::move(flags));
    options.environment.emplace_back("XDG_CACHE_HOME", cache().string());
    return options;
  }
  std::vector<fs::path> saved() const {
    std::vector<fs::path> files;
    if (fs::exists(cache() / "moraine")) {
      for (const auto& entry : fs::directory_iterator(cache() / "moraine")) files.push_back(entry.path());
    }
    return files;
  }

  /// What a stopped conversion has left opens whole or not at all.
  void expect_no_half_pack() const {
    const bool is_whole = fs::exists(target() / "moraine_pack.json");
    const int opened = run_process(program({"verify", target().string()})).exit_code;
    EXPECT_EQ(opened, is_whole ? 0 : 3);
  }

  /// Finishes the conversion and compares it with one that nobody disturbed.
  void expect_resumed_to_the_same_bytes() const {
    const ProcessResult resumed = run_process(convert());
    ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
    size_t files = 0;
    for (const auto& entry : fs::directory_iterator(pack())) {
      EXPECT_EQ(testing::file_content(target() / entry.path().filename()), testing::file_content(entry.path()))
          << entry.path();
      ++files;
    }
    EXPECT_EQ(static_cast<size_t>(std::distance(fs::directory_iterator(target()), {})), files) << "something is left";
  }
};

class FaultSavingShimSlow : public FaultSavingSlow {
 protected:
  void SetUp() override {
    if (!fs::exists(shim())) GTEST_SKIP() << "no disk to fill below a program with sanitizers";
  }
};

TEST_F(FaultSavingShimSlow, AFullDiskStopsAConversionThatThenGoesOn) {
  for (const int written : {0, 1, 5, 50}) {
    const ProcessResult stopped =
        run_process(with({.kind = "ENOSPC", .file = target().string(), .skip = written}, convert()));
    expect_clean_error(stopped, 4, {"No space left on device", target().string()});
    expect_no_half_pack();
  }
  expect_resumed_to_the_same_bytes();
}

TEST_F(FaultSavingShimSlow, AFullDiskKeepsTheHotSetOfBefore) {
  expect_right(run_process(answer_and_save()));
  ASSERT_EQ(saved().size(), 1u);
  const std::string before = testing::file_content(saved()[0]);
  const ProcessResult result =
      run_process(with({.kind = "ENOSPC", .file = cache().string()}, answer_and_save({"--no-prefetch"})));
  expect_right(result);
  EXPECT_NE(result.err.find("No space left on device"), std::string::npos) << result.err;
  ASSERT_EQ(saved().size(), 1u) << "no half file stays";
  EXPECT_EQ(testing::file_content(saved()[0]), before);
}

TEST_F(FaultSavingShimSlow, AFullDiskCutsATraceAndNothingElse) {
  const fs::path trace = directory_ / "trace.json";
  const ProcessResult result =
      run_process(with({.kind = "ENOSPC", .file = trace.string(), .skip = 1}, answer({"--trace", trace})));
  expect_right(result);
  EXPECT_NE(result.err.find("No space left on device"), std::string::npos) << result.err;
}

TEST_F(FaultSavingSlow, AFullDeviceForATraceIsTold) {
  const ProcessResult result = run_process(answer({"--trace", "/dev/full"}));
  expect_right(result);
  EXPECT_NE(result.err.find("No space left on device"), std::string::npos) << result.err;
}

TEST_F(FaultSavingShimSlow, AConversionKilledAtAnyChangeOfAFileGoesOn) {
  // Each run goes on from what the killed one before it has left. Steps grow, so that it comes to its end.
  int killed = 0;
  for (int survived = 0; survived < 2000; survived += 1 + killed / 2, ++killed) {
    const int code =
        run_process(with({.kind = "kill", .file = target().string(), .skip = survived}, convert())).exit_code;
    if (code == 0) break;
    ASSERT_EQ(code, kKilled);
    if (killed % 4 == 0) expect_no_half_pack();
  }
  EXPECT_GE(killed, 5);
  expect_resumed_to_the_same_bytes();
}

TEST_F(FaultSavingSlow, AConversionKilledAtAnyTimeGoesOn) {
  std::mt19937 random(7);
  for (int round = 0; round < 3; ++round) {
    fs::remove_all(target());
    for (int i = 0; i < 4; ++i) {
      Process process(convert());
      std::this_thread::sleep_for(std::chrono::milliseconds(random() % 250));
      process.signal(SIGKILL);
      process.wait();
      expect_no_half_pack();
    }
    expect_resumed_to_the_same_bytes();
  }
}

TEST_F(FaultSavingShimSlow, ARunKilledWhileItSavesLeavesTheOldListOrTheNewOne) {
  expect_right(run_process(answer_and_save()));
  for (int survived = 0;; ++survived) {
    ASSERT_LT(survived, 20);
    const int code =
        run_process(with({.kind = "kill", .file = cache().string(), .skip = survived}, answer_and_save())).exit_code;
    const ProcessResult next = run_process(answer_and_save());
    expect_right(next);
    EXPECT_EQ(next.err.find("is ignored"), std::string::npos) << "a half list was taken for a whole one: " << next.err;
    if (code == 0) {
      EXPECT_GE(survived, 3) << "write, flush and rename are points to be killed at";
      break;
    }
    ASSERT_EQ(code, kKilled);
  }
  EXPECT_EQ(saved().size(), 1u);
}

TEST_F(FaultSavingSlow, ARunKilledAtAnyTimeHurtsNoLaterOne) {
  std::mt19937 random(11);
  for (int i = 0; i < 8; ++i) {
    Process process(answer_and_save());
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 300));
    process.signal(SIGKILL);
    process.wait();
    const ProcessResult next = run_process(answer_and_save());
    expect_right(next);
    EXPECT_EQ(next.err.find("is ignored"), std::string::npos) << next.err;
  }
}

}  // namespace
}  // namespace moraine::tools
