#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/gguf.h"

namespace moraine::runtime {

/// Reads typed values out of a GGUF's metadata and gathers every fault, so that a person sees all of them at once.
class GgufKeys {
 public:
  /// `architecture` is put before keys that begin with a dot: ".block_count" is "deepseek2.block_count".
  GgufKeys(const quant::GgufMetadata& metadata, std::string architecture)
      : metadata_(metadata), architecture_(std::move(architecture)) {}

  bool has(std::string_view key) const { return find(key) != nullptr; }
  /// A fault and 0 if it is missing or no integer.
  int64_t integer(std::string_view key);
  int64_t integer_or(std::string_view key, int64_t otherwise);
  double number(std::string_view key);
  double number_or(std::string_view key, double otherwise);
  bool boolean_or(std::string_view key, bool otherwise);
  std::optional<std::string> text(std::string_view key);
  /// The array of strings or integers of that name; a fault and nullptr if it is missing or something else.
  const quant::GgufArray* strings(std::string_view key);
  const quant::GgufArray* integers(std::string_view key);

  /// Notes a fault: "key: text".
  void fault(std::string_view key, const std::string& text);
  /// Throws quant::Error(kBadFile) with all faults, if any.
  void check(const std::filesystem::path& file) const;

 private:
  std::string full(std::string_view key) const;
  const quant::GgufValue* find(std::string_view key) const;
  const quant::GgufArray* array(std::string_view key, bool of_strings);

  const quant::GgufMetadata& metadata_;
  std::string architecture_;
  std::vector<std::string> faults_;
};

}  // namespace moraine::runtime
