// The built program on files that are wrong, or go wrong while it reads them, on mirrors, and under tight limits.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "support/faulty_program.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using testing::Process;
using testing::ProcessOptions;
using testing::ProcessResult;

void overwrite(const fs::path& file, uint64_t offset, const std::string& bytes) {
  std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
  out.seekp(static_cast<std::streamoff>(offset)).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) throw std::runtime_error("could not write " + file.string());
}

/// Whether the start looks at this place of a mirror's file.
bool is_compared(uint64_t place, uint64_t size_bytes) {
  constexpr uint64_t kSampleBytes = 256u << 10;
  for (const uint64_t begin : {uint64_t{0}, (size_bytes - kSampleBytes) / 2, size_bytes - kSampleBytes}) {
    if (place >= begin && place < begin + kSampleBytes) return true;
  }
  return false;
}

class FaultFile : public testing::FaultyProgram {
 protected:
  /// A copy of the pack, to be broken.
  fs::path copy() const {
    const fs::path made = directory_ / "pack";
    if (!fs::exists(made)) fs::copy(pack(), made);
    return made;
  }
  static std::vector<fs::path> expert_files(const fs::path& directory) {
    std::vector<fs::path> files;
    for (int layer = 1; layer < 8; ++layer) files.push_back(directory / expert_file(layer).filename());
    return files;
  }

  /// A long answer from the copy, during which `change` happens to every file of experts.
  ProcessResult answer_while(const std::function<void(const fs::path&)>& change) const {
    Process process(long_answer(copy()));
    process.wait_for("\n");  // the plan is told
    process.wait_for(" ");   // it talks
    for (const fs::path& file : expert_files(copy())) change(file);
    return process.wait();
  }
  /// So hot that it hardly ever draws its end: a second of random words.
  static ProcessOptions long_answer(const fs::path& model) {
    return program({"generate", model, "-p", "Once upon a time", "--raw", "--temp", "100", "--top-p", "1", "--seed",
                    "5", "--max-tokens", "120", "--ram-budget", std::to_string(4 * record_bytes())});
  }
};

TEST_F(FaultFile, ABitThatFlippedOnTheDiskNeverBecomesText) {
  for (const fs::path& file : expert_files(copy())) {
    for (uint64_t expert = 0; expert < 32; ++expert) overwrite(file, expert * record_bytes() + 1234, "\x55");
  }
  for (const char* reader : {"auto", "pread"}) {
    expect_clean_error(run_process(answer({"--reader", reader}, copy())), 6,
                       {"layer ", " expert ", "experts-", "byte ", "verify"});
  }
}

TEST_F(FaultFile, AFileCutShortDuringARunEndsItCleanly) {
  const ProcessResult result = answer_while([](const fs::path& file) { fs::resize_file(file, 5000); });
  EXPECT_EQ(result.exit_code, 3) << result.err;
  for (const char* part : {"the file ends too early", "layer ", " expert ", "experts-", "byte "}) {
    EXPECT_NE(result.err.find(part), std::string::npos) << part << ": " << result.err;
  }
}

TEST_F(FaultFile, AFileOverwrittenDuringARunEndsItCleanly) {
  const ProcessResult result =
      answer_while([](const fs::path& file) { overwrite(file, 0, std::string(fs::file_size(file), '!')); });
  EXPECT_EQ(result.exit_code, 6) << result.err;
  for (const char* part : {"checksum", "layer ", " expert ", "experts-", "byte "}) {
    EXPECT_NE(result.err.find(part), std::string::npos) << part << ": " << result.err;
  }
}

TEST_F(FaultFile, AFileReplacedOrRemovedDuringARunIsTheOldOneStill) {
  const std::string expected = run_process(long_answer(pack())).out;
  const ProcessResult replaced = answer_while([this](const fs::path& file) {
    fs::rename(directory_.write("other", std::string(fs::file_size(file), '!')), file);
  });
  EXPECT_EQ(replaced.exit_code, 0) << replaced.err;
  EXPECT_EQ(replaced.out, expected);
  EXPECT_EQ(run_process(answer({}, copy())).exit_code, 6) << "the next run meets the new one";
  fs::remove_all(copy());
  const ProcessResult removed = answer_while([](const fs::path& file) { fs::remove(file); });
  EXPECT_EQ(removed.exit_code, 0) << removed.err;
  EXPECT_EQ(removed.out, expected);
}

TEST_F(FaultFile, LittleLockableMemoryAndFewFilesAreEnough) {
  ProcessOptions options = answer();
  options.limits = {{RLIMIT_MEMLOCK, 64 << 10}, {RLIMIT_NOFILE, 64}};
  expect_right(run_process(options));
  ProcessOptions striped = answer({"--stripe", copy()});
  striped.limits = options.limits;
  expect_right(run_process(striped));
}

TEST_F(FaultFile, TooFewFilesForThePackAreACleanError) {
  if (!fs::exists(shim())) GTEST_SKIP() << "UBSan opens a pipe to look at an exception, and reports what it cannot see";
  ProcessOptions options = answer();
  options.limits = {{RLIMIT_NOFILE, 14}};
  expect_clean_error(run_process(options), 5, {"Too many open files"});
}

TEST_F(FaultFile, WithoutIoUringTheMirrorIsReadToo) {
  ProcessOptions options = answer({"--stripe", copy()});
  options.refuse_io_uring = true;
  const ProcessResult result = run_process(options);
  expect_right(result);
  EXPECT_NE(result.err.find("pread"), std::string::npos) << result.err;
}

TEST_F(FaultFile, AMirrorGivesTheSameTokensToEveryCommand) {
  const ProcessResult answered = run_process(answer({"--stripe", copy()}));
  expect_right(answered);
  EXPECT_NE(answered.err.find("too (7 of 7 files)"), std::string::npos) << answered.err;
  const std::vector<std::string> question = {"run", pack(), "-p", "What is io_uring?", "--temp", "0"};
  std::vector<std::string> striped = question;
  striped.insert(striped.end(), {"--stripe", copy()});
  const ProcessResult ran = run_process(program(striped));
  EXPECT_EQ(ran.exit_code, 0) << ran.err;
  EXPECT_EQ(ran.out, run_process(program(question)).out);
}

TEST_F(FaultFile, AMirrorMayHoldSomeFilesAndThereMayBeSeveral) {
  const fs::path few = directory_ / "few";
  fs::create_directory(few);
  for (const int layer : {2, 5}) fs::copy(expert_file(layer), few / expert_file(layer).filename());
  const ProcessResult result = run_process(answer({"--stripe", few, "--stripe", copy()}));
  expect_right(result);
  EXPECT_NE(result.err.find("few too (2 of 7 files)"), std::string::npos) << result.err;
}

TEST_F(FaultFile, AWrongMirrorIsRefusedByTheNameOfTheFile) {
  const auto refused = [&](const fs::path& mirror, const std::vector<std::string>& parts) {
    expect_clean_error(run_process(answer({"--stripe", mirror})), 3, parts);
  };
  refused(directory_ / "absent", {"absent", "none of the model's files"});
  refused(pack(), {"own file"});
  overwrite(expert_files(copy())[2], 10, "!!!");
  refused(copy(), {expert_files(copy())[2].string(), "other bytes"});
  fs::resize_file(expert_files(copy())[1], 4096);
  refused(copy(), {expert_files(copy())[1].string(), "another size", "4096 bytes"});
}

TEST_F(FaultFile, AMirrorWithABadRecordCostsARereadAndNothingElse) {
  for (const fs::path& file : expert_files(copy())) {
    for (uint64_t expert = 0; expert < 32; ++expert) {
      // Not where mirrors are compared: there it would be refused at once.
      const uint64_t place = expert * record_bytes() + record_bytes() * 3 / 4;
      if (!is_compared(place, fs::file_size(file))) overwrite(file, place, "\x55");
    }
  }
  const ProcessResult result = run_process(answer({"--stripe", copy()}));
  expect_right(result);
  EXPECT_GT(quant::parse_json(result.out, "stdout").at("stats").at("store").at("rereads"), 0);
}

TEST_F(FaultFile, GgufFilesHaveMirrorsToo) {
  const fs::path file = directory_ / "model.gguf", mirror = directory_ / "mirror";
  const ProcessResult made =
      run_process(program({"convert", testing::tiny_r1().string(), file, "--gguf", "--experts", "Q8_0"}));
  ASSERT_EQ(made.exit_code, 0) << made.err;
  fs::create_directory(mirror);
  fs::copy(file, mirror);
  const std::vector<int> expected = ids_of(run_process(answer({}, file)));
  for (const char* reader : {"auto", "pread"}) {
    EXPECT_EQ(ids_of(run_process(answer({"--stripe", mirror, "--reader", reader}, file))), expected);
  }
}

}  // namespace
}  // namespace moraine::tools
