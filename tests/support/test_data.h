#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "quant/json.h"

namespace moraine::testing {

/// A file or folder of tests/data.
inline std::filesystem::path test_data(const std::string& name) {
  return std::filesystem::path(MORAINE_SOURCE_DIR) / "tests" / "data" / name;
}

/// The embedded model's directory.
inline std::filesystem::path tiny_r1() {
  return std::filesystem::path(MORAINE_SOURCE_DIR) / "tools/models/tiny-r1";
}

/// A file of little-endian f32 values.
inline std::vector<float> read_f32(const std::filesystem::path& file) {
  const std::string bytes = quant::read_text(file, 64 << 20);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

}  // namespace moraine::testing
