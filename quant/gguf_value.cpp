#include "quant/gguf_value.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "quant/error.h"

namespace moraine::quant {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is little-endian, and so is every machine we run on");

template <typename Number>
Number number_at(const char* bytes) {
  Number number;
  std::memcpy(&number, bytes, sizeof number);
  return number;
}

}  // namespace

std::string_view gguf_type_name(GgufType type) {
  constexpr std::array<std::string_view, 13> kNames = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                       "bool", "string", "array", "u64", "i64", "f64"};
  return kNames.at(static_cast<size_t>(type));
}

uint64_t gguf_type_bytes(GgufType type) {
  constexpr std::array<uint64_t, 13> kBytes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kBytes.at(static_cast<size_t>(type));
}

GgufArray GgufArray::of_strings(const std::vector<std::string>& values) {
  GgufArray array{.element = GgufType::kString, .count = values.size(), .bytes = {}, .ends = {}};
  for (const std::string& value : values) {
    array.bytes += value;
    array.ends.push_back(array.bytes.size());
  }
  return array;
}

GgufArray GgufArray::of_i32(const std::vector<int32_t>& values) {
  GgufArray array{.element = GgufType::kI32, .count = values.size(), .bytes = {}, .ends = {}};
  for (const int32_t value : values) append_number(array.bytes, value);
  return array;
}

std::string_view GgufArray::text(size_t index) const {
  MORAINE_CHECK(element == GgufType::kString && index < count);
  const uint64_t begin = index == 0 ? 0 : ends[index - 1];
  return std::string_view(bytes).substr(begin, ends[index] - begin);
}

std::optional<int64_t> GgufArray::integer(size_t index) const {
  MORAINE_CHECK(index < count);
  const uint64_t size_bytes = gguf_type_bytes(element);
  if (size_bytes == 0) return std::nullopt;
  const auto value = GgufValue::scalar(element, bytes.data() + index * size_bytes);
  return value ? value->integer() : std::nullopt;
}

std::optional<GgufValue> GgufValue::scalar(GgufType type, const char* bytes) {
  switch (type) {
    case GgufType::kU8:
      return GgufValue(type, uint64_t{number_at<uint8_t>(bytes)});
    case GgufType::kI8:
      return GgufValue(type, int64_t{number_at<int8_t>(bytes)});
    case GgufType::kU16:
      return GgufValue(type, uint64_t{number_at<uint16_t>(bytes)});
    case GgufType::kI16:
      return GgufValue(type, int64_t{number_at<int16_t>(bytes)});
    case GgufType::kU32:
      return GgufValue(type, uint64_t{number_at<uint32_t>(bytes)});
    case GgufType::kI32:
      return GgufValue(type, int64_t{number_at<int32_t>(bytes)});
    case GgufType::kF32:
      return GgufValue(type, static_cast<double>(number_at<float>(bytes)));
    case GgufType::kBool: {
      const auto byte = number_at<uint8_t>(bytes);
      if (byte > 1) return std::nullopt;
      return GgufValue(type, byte == 1);
    }
    case GgufType::kU64:
      return GgufValue(type, number_at<uint64_t>(bytes));
    case GgufType::kI64:
      return GgufValue(type, number_at<int64_t>(bytes));
    case GgufType::kF64:
      return GgufValue(type, number_at<double>(bytes));
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  MORAINE_CHECK(!"a number");
  return std::nullopt;
}

std::optional<int64_t> GgufValue::integer() const {
  if (const auto* value = std::get_if<int64_t>(&value_)) return *value;
  const auto* value = std::get_if<uint64_t>(&value_);
  if (value == nullptr || *value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return static_cast<int64_t>(*value);
}

std::optional<double> GgufValue::number() const {
  if (const auto whole = integer()) return static_cast<double>(*whole);
  const auto* value = std::get_if<double>(&value_);
  if (value == nullptr) return std::nullopt;
  if (type_ != GgufType::kF32 || !std::isfinite(*value)) return *value;
  const std::string text = fmt::format("{}", static_cast<float>(*value));
  double exact = 0.0;
  std::from_chars(text.data(), text.data() + text.size(), exact);
  return exact;
}

std::optional<bool> GgufValue::boolean() const {
  const auto* value = std::get_if<bool>(&value_);
  return value != nullptr ? std::optional<bool>(*value) : std::nullopt;
}

void append_gguf_string(std::string& out, std::string_view text) {
  append_number(out, static_cast<uint64_t>(text.size()));
  out.append(text);
}

void GgufValue::append_to(std::string& out) const {
  append_number(out, static_cast<uint32_t>(type_));
  if (const std::string* string = text()) return append_gguf_string(out, *string);
  if (const GgufArray* list = array()) {
    append_number(out, static_cast<uint32_t>(list->element));
    append_number(out, list->count);
    if (list->element != GgufType::kString) {
      out += list->bytes;
      return;
    }
    for (size_t i = 0; i < list->count; ++i) append_gguf_string(out, list->text(i));
    return;
  }
  if (const auto* flag = std::get_if<bool>(&value_)) return append_number(out, static_cast<uint8_t>(*flag ? 1 : 0));
  if (const auto* real = std::get_if<double>(&value_)) {
    if (type_ == GgufType::kF32) return append_number(out, static_cast<float>(*real));
    return append_number(out, *real);
  }
  // Two's complement: the low bytes of either kind of integer are the narrower integer.
  const auto* natural = std::get_if<uint64_t>(&value_);
  const uint64_t bits = natural != nullptr ? *natural : static_cast<uint64_t>(std::get<int64_t>(value_));
  out.append(reinterpret_cast<const char*>(&bits), gguf_type_bytes(type_));
}

}  // namespace moraine::quant
