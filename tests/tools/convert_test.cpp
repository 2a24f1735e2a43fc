// `convert` as a program: the whole of DeepSeek-R1 as sparse files, and conversions that are killed.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "support/expect_error.h"
#include "support/fp8_checkpoint.h"
#include "support/process.h"
#include "support/temp_dir.h"
#include "tools/converter.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using testing::ProcessOptions;
using testing::ProcessResult;
using testing::TempDir;

ProcessOptions convert(std::vector<std::string> args) {
  args.insert(args.begin(), {MORAINE_BINARY_DIR "/bin/moraine", "convert"});
  return {.args = std::move(args)};
}

/// All 163 shards, 91,991 tensors with true headers, and not one weight.
class ConvertWholeR1Slow : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<TempDir>();
    fs::create_directory(source());
    testing::write_fp8_checkpoint({.sparse = true}, source());
  }
  static void TearDownTestSuite() { directory_.reset(); }
  static fs::path source() { return *directory_ / "R1"; }
  static fs::path pack() { return *directory_ / "pack"; }
  static std::string shard(int number) { return fmt::format("model-{:05}-of-000163.safetensors", number); }

  static inline std::unique_ptr<TempDir> directory_;
};

TEST_F(ConvertWholeR1Slow, ADryRunSaysWhatWouldBeDoneWithinLittleMemory) {
  const ProcessResult result = run_process(convert({source(), pack(), "--experts", "Q4_K", "--dry-run"}));
  // 4 where the disk has no room for the pack, which is said, too.
  EXPECT_TRUE(result.exit_code == 0 || result.exit_code == 4) << result.exit_code << result.err;
  for (const char* part : {"91991 tensors in 163 files, 641.3 GiB", "in 59 layers as Q4_K", "0 of 163 files",
                           "memory     at most", "time       about"}) {
    EXPECT_NE(result.out.find(part), std::string::npos) << part << " is not in " << result.out;
  }
  EXPECT_LT(result.peak_rss_bytes, uint64_t{1} << 30);
  EXPECT_FALSE(fs::exists(pack()));
}

TEST_F(ConvertWholeR1Slow, EveryExpertOfEveryLayerIsPlanned) {
  ConvertOptions options;
  options.source = source();
  options.destination = pack();
  options.experts = quant::DType::kQ4_K;
  options.dry_run = true;
  options.free_bytes = [](const fs::path&) { return uint64_t{1} << 30; };
  const Converter converter(options);
  uint64_t source_bytes = 0;
  for (const auto& [name, tensor] : converter.checkpoint().tensors()) source_bytes += tensor.size_bytes;
  EXPECT_EQ(source_bytes, 688'574'839'360u);  // shared facts: what the published files hold
  EXPECT_EQ(converter.experts().records->experts().size(), 59u * 256u);
  testing::expect_error(quant::ErrorKind::kNotEnough, {"1.0 GiB"}, [&] { converter.check_space(); });
  options.dry_run = false;
  testing::expect_error(quant::ErrorKind::kNotEnough, {"1.0 GiB"}, [&] { Converter{options}; });
}

TEST_F(ConvertWholeR1Slow, AllMissingAndAllTruncatedShardsAreNamedAtOnce) {
  const TempDir broken;
  for (const fs::directory_entry& entry : fs::directory_iterator(source())) {
    fs::create_symlink(entry.path(), broken.path() / entry.path().filename());
  }
  for (const int number : {2, 77, 163}) fs::remove(broken.path() / shard(number));
  for (const int number : {5, 90}) {
    const fs::path file = broken.path() / shard(number);
    const uint64_t size_bytes = fs::file_size(file);
    fs::remove(file);
    std::string header(200'000, '\0');  // all of it, and some of the hole behind
    std::ifstream(source() / shard(number), std::ios::binary).read(header.data(), 200'000);
    std::ofstream(file, std::ios::binary) << header;
    fs::resize_file(file, size_bytes - 1);
  }
  const ProcessResult result = run_process(convert({broken.path(), pack(), "--dry-run"}));
  EXPECT_EQ(result.exit_code, 3) << result.err;
  for (const std::string& part :
       {std::string("3 of 163 model files are missing"), shard(2), shard(77), shard(163),
        std::string("2 of 163 model files are incomplete"), shard(5), shard(90), std::string("truncated")}) {
    EXPECT_NE(result.err.find(part), std::string::npos) << part << " is not in " << result.err;
  }
}

std::map<std::string, std::string> content(const fs::path& directory) {
  std::map<std::string, std::string> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    files[entry.path().filename().string()] = testing::file_content(entry.path());
  }
  return files;
}

TEST(ConvertKilledSlow, KilledAnywhereItGoesOnAndThePackIsTheSame) {
  const TempDir directory;
  const std::string whole = directory / "whole", pack = directory / "pack";
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(run_process(convert({testing::tiny_r1(), whole, "--experts", "Q4_K"})).exit_code, 0);
  const auto duration = std::chrono::steady_clock::now() - start;
  int killed = 0;
  for (int run = 0;; ++run) {
    testing::Process process(convert({testing::tiny_r1(), pack, "--experts", "Q4_K"}));
    // Each run goes a little further than the last, until one reaches the end.
    std::this_thread::sleep_for(duration * (1 + run) / 12);
    process.signal(SIGKILL);
    const ProcessResult result = process.wait();
    if (result.exit_code == 0) break;
    ASSERT_EQ(result.exit_code, 128 + SIGKILL) << result.err;
    ASSERT_LT(++killed, 40);
  }
  EXPECT_GT(killed, 2);
  EXPECT_EQ(content(pack), content(whole));
}

}  // namespace
}  // namespace moraine::tools
