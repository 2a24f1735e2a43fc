#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/json.h"

namespace moraine::runtime {

/// Bounds of a config's sizes: far above any published model and far below what could overflow a product of two.
inline constexpr int64_t kMaxDim = 1 << 20;
inline constexpr int64_t kMaxHeads = 65536;
inline constexpr int64_t kMaxVocab = 1 << 24;
inline constexpr int64_t kMaxLayers = 4096;
inline constexpr int64_t kMaxExperts = 65536;
inline constexpr int64_t kMaxPositions = int64_t{1} << 32;

/// Reads typed fields out of a JSON object and gathers every fault, so that a person sees all of them at once.
class ConfigReader {
 public:
  ConfigReader(const quant::Json& object, std::string prefix = {});

  /// The integer, in [least, most]; a fault and `least` otherwise.
  int64_t integer(const char* name, int64_t least, int64_t most);
  /// The same for a field that may be absent (or null): `otherwise` then.
  int64_t integer_or(const char* name, int64_t least, int64_t most, int64_t otherwise);
  double number(const char* name, double least, double most);
  double number_or(const char* name, double least, double most, double otherwise);
  bool boolean_or(const char* name, bool otherwise);
  std::string text_or(const char* name, const std::string& otherwise);
  /// The object of that name, or nullptr if absent or null; a fault if it is something else.
  const quant::Json* object_or_null(const char* name);
  /// An integer or a list of integers, each in [least, most]; empty if absent or null.
  std::vector<int32_t> integer_list(const char* name, int32_t least, int32_t most);

  /// Settings that exist in a family but are not built: a fault unless the field is absent or has this very value.
  void expect_text(const char* name, const std::string& supported);
  void expect_boolean(const char* name, bool supported);

  /// Notes a fault: "name: text".
  void fault(const char* name, const std::string& text);
  const std::vector<std::string>& faults() const { return faults_; }
  void take_faults_of(const ConfigReader& nested);

 private:
  const quant::Json* find(const char* name) const;
  std::optional<int64_t> checked_integer(const char* name, const quant::Json& value, int64_t least, int64_t most);
  std::optional<double> checked_number(const char* name, const quant::Json& value, double least, double most);

  const quant::Json& object_;
  std::string prefix_;
  std::vector<std::string> faults_;
};

}  // namespace moraine::runtime
