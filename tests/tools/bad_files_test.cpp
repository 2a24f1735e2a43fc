// Files that break one rule each (tests/fuzz/corpus), given to the built program as a model: one line, exit status 3,
// at once and without memory for what the file only claims.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "support/process.h"
#include "support/temp_dir.h"
#include "support/test_data.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // takes several times the time and memory
#else
constexpr bool kSanitized = false;
#endif

/// The seeds bad_* of one reader.
std::set<fs::path> bad_seeds(const char* reader) {
  std::set<fs::path> seeds;
  for (const auto& entry : fs::directory_iterator(fs::path(MORAINE_SOURCE_DIR) / "tests/fuzz/corpus" / reader)) {
    if (entry.path().filename().string().starts_with("bad_")) seeds.insert(entry.path());
  }
  return seeds;
}

/// `moraine inspect` refuses `model`, saying `words`.
void expect_refused_at_once(const fs::path& model, const std::string& words) {
  constexpr double kMostSeconds = 0.1;
  constexpr uint64_t kMostBytes = 32u << 20;  // of the whole program
  const testing::ProcessResult result =
      testing::run_process({.args = {MORAINE_BINARY_DIR "/bin/moraine", "inspect", model}});
  EXPECT_EQ(result.exit_code, 3) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  EXPECT_NE(result.err.find(words), std::string::npos) << "'" << words << "' is not in: " << result.err;
  if (kSanitized) return;
  EXPECT_LT(result.cpu_s, kMostSeconds);
  EXPECT_LT(result.peak_rss_bytes, kMostBytes);
}

TEST(BadFiles, EveryBrokenGgufIsRefusedAtOnce) {
  // Shapes of broken files, and what is said of them.
  const std::map<std::string, std::string> said = {
      {"bad_alignment", "'general.alignment': not an alignment"},
      {"bad_array_count", "got 18446744073709551615"},
      {"bad_array_overflow", "the length of an array is beyond the end"},
      {"bad_duplicate_key", "twice"},
      {"bad_duplicate_tensor", "two tensors have the same name"},
      {"bad_key_count", "got 18446744073709551615"},
      {"bad_key_length", "got 18446744073709551615"},
      {"bad_nested_array", "array of arrays"},
      {"bad_offset", "not aligned"},
      {"bad_offset_huge", "beyond the end of the file"},
      {"bad_overlap", "overlap"},
      {"bad_shape_overflow", "impossible shape"},
      {"bad_string_length", "got 18446744073709551615"},
      {"bad_tensor_count", "got 18446744073709551615"},
      {"bad_tensor_type", "type number 4"},
      {"bad_value_type", "unknown type"},
  };
  size_t known = 0;
  for (const fs::path& seed : bad_seeds("gguf")) {
    SCOPED_TRACE(seed.filename().string());
    const auto words = said.find(seed.stem().string());
    known += words == said.end() ? 0 : 1;
    expect_refused_at_once(seed, words == said.end() ? "" : words->second);
  }
  EXPECT_EQ(known, said.size());
}

TEST(BadFiles, EveryBrokenSafetensorsFileIsRefusedAtOnce) {
  const std::map<std::string, std::string> said = {
      {"bad_bits_overflow", "no number of bytes that fits 64 bits"},
      {"bad_count", "got 18446744073709551615"},
      {"bad_depth", "nested too deeply"},
      {"bad_dtype", "unknown dtype"},
      {"bad_duplicate", "twice"},
      {"bad_end", "got 18446744073709551615"},
      {"bad_header_length", "got 18446744073709551615"},
      {"bad_nested_shape", "nested too deeply"},
      {"bad_overflow", "no number of bytes that fits 64 bits"},
      {"bad_overlap", "overlap"},
      {"bad_truncated_data", "truncated"},
  };
  const testing::TempDir model;
  fs::copy_file(testing::test_data("oracle/models/qwen2/config.json"), model / "config.json");
  size_t known = 0;
  for (const fs::path& seed : bad_seeds("safetensors")) {
    SCOPED_TRACE(seed.filename().string());
    fs::copy_file(seed, model / "model.safetensors", fs::copy_options::overwrite_existing);
    const auto words = said.find(seed.filename().string());
    known += words == said.end() ? 0 : 1;
    expect_refused_at_once(model.path(), words == said.end() ? "" : words->second);
  }
  EXPECT_EQ(known, said.size());
}

}  // namespace
}  // namespace moraine::tools
