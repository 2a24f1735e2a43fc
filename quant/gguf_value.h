#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace moraine::quant {

/// Types of metadata values; the numbers are those of the file.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

/// "u32", "string", "array", …
std::string_view gguf_type_name(GgufType type);
/// Bytes of a number or bool; 0 for strings and arrays.
uint64_t gguf_type_bytes(GgufType type);

/// An array of numbers, bools or strings, kept about as the file has it: a vocabulary is 129,280 strings.
struct GgufArray {
  GgufType element = GgufType::kU8;
  uint64_t count = 0;
  std::string bytes;           ///< the elements' little-endian bytes, or the strings' one after the other
  std::vector<uint64_t> ends;  ///< of strings: where each ends in `bytes`

  static GgufArray of_strings(const std::vector<std::string>& values);
  static GgufArray of_i32(const std::vector<int32_t>& values);

  /// Element `index` of a string array; valid as long as *this.
  std::string_view text(size_t index) const;
  /// Element `index` of an array of integers, or nothing if it is none or beyond int64.
  std::optional<int64_t> integer(size_t index) const;
};

/// One metadata value.
class GgufValue {
 public:
  static GgufValue u16(uint16_t value) { return {GgufType::kU16, uint64_t{value}}; }
  static GgufValue u32(uint32_t value) { return {GgufType::kU32, uint64_t{value}}; }
  static GgufValue i32(int32_t value) { return {GgufType::kI32, int64_t{value}}; }
  static GgufValue u64(uint64_t value) { return {GgufType::kU64, value}; }
  static GgufValue f32(float value) { return {GgufType::kF32, static_cast<double>(value)}; }
  static GgufValue boolean(bool value) { return {GgufType::kBool, value}; }
  static GgufValue string(std::string value) { return {GgufType::kString, std::move(value)}; }
  static GgufValue array(GgufArray value) { return {GgufType::kArray, std::move(value)}; }
  /// A number of `type` from its little-endian bytes; nothing for a bool that is neither 0 nor 1.
  static std::optional<GgufValue> scalar(GgufType type, const char* bytes);

  GgufType type() const { return type_; }

  /// The value of any integer type; nothing if it is another type or beyond int64.
  std::optional<int64_t> integer() const;
  /// The value of any number. An f32 becomes the double of its shortest decimal text: writers narrow what was 0.1 or
  /// 1e-6 in config.json, and that is what it is again here.
  std::optional<double> number() const;
  std::optional<bool> boolean() const;
  const std::string* text() const { return std::get_if<std::string>(&value_); }
  const GgufArray* array() const { return std::get_if<GgufArray>(&value_); }

  /// The bytes that stand in a file behind the key: type and value.
  void append_to(std::string& out) const;

 private:
  using Variant = std::variant<uint64_t, int64_t, double, bool, std::string, GgufArray>;
  GgufValue(GgufType type, Variant value) : type_(type), value_(std::move(value)) {}

  GgufType type_;
  Variant value_;
};

/// Metadata by key.
using GgufMetadata = std::map<std::string, GgufValue, std::less<>>;

/// `number` in little-endian bytes.
template <typename Number>
void append_number(std::string& out, Number number) {
  out.append(reinterpret_cast<const char*>(&number), sizeof number);
}
/// A string as GGUF writes it: u64 length, then the bytes.
void append_gguf_string(std::string& out, std::string_view text);

}  // namespace moraine::quant
