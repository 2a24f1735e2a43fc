#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

namespace moraine::quant {

/// The JSON value of every other folder; object keys keep the order of the text.
using Json = nlohmann::ordered_json;

/// Bounds on a JSON text that comes from a file. Reading costs memory proportional to the text and no more.
struct JsonLimits {
  uint64_t max_bytes = 64u << 20;
  int max_depth = 32;
};

/// Parses a whole JSON text. Throws Error(kBadFile) naming `file` and the byte offset if the text is longer or deeper
/// than `limits`, is not valid UTF-8 JSON, has a duplicate key, or is followed by anything but white space.
Json parse_json(std::string_view text, const std::filesystem::path& file, const JsonLimits& limits = {});

/// Reads and parses a file. Throws Error(kIo) if it can't be read, otherwise as parse_json.
Json read_json(const std::filesystem::path& file, const JsonLimits& limits = {});

/// Reads a whole file of at most `max_bytes`. Throws Error(kIo), or Error(kBadFile) if it is larger.
std::string read_text(const std::filesystem::path& file, uint64_t max_bytes);

}  // namespace moraine::quant
