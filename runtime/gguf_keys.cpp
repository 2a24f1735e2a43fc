#include "runtime/gguf_keys.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "quant/error.h"

namespace moraine::runtime {

std::string GgufKeys::full(std::string_view key) const {
  return key.starts_with('.') ? architecture_ + std::string(key) : std::string(key);
}

const quant::GgufValue* GgufKeys::find(std::string_view key) const {
  const auto found = metadata_.find(full(key));
  return found == metadata_.end() ? nullptr : &found->second;
}

void GgufKeys::fault(std::string_view key, const std::string& text) {
  faults_.push_back(fmt::format("{}: {}", quant::printable(full(key)), text));
}

void GgufKeys::check(const std::filesystem::path& file) const {
  if (faults_.empty()) return;
  throw quant::Error(quant::ErrorKind::kBadFile,
                     {.what = fmt::format("cannot run this model: {}", fmt::join(faults_, "; ")),
                      .file = file,
                      .action = "download the file again, or convert the model with a newer converter"});
}

int64_t GgufKeys::integer(std::string_view key) {
  if (!has(key)) fault(key, "is missing");
  return integer_or(key, 0);
}

int64_t GgufKeys::integer_or(std::string_view key, int64_t otherwise) {
  const quant::GgufValue* value = find(key);
  if (value == nullptr) return otherwise;
  if (const auto integer = value->integer()) return *integer;
  fault(key, fmt::format("expected an integer, got {}", gguf_type_name(value->type())));
  return otherwise;
}

double GgufKeys::number(std::string_view key) {
  if (!has(key)) fault(key, "is missing");
  return number_or(key, 0.0);
}

double GgufKeys::number_or(std::string_view key, double otherwise) {
  const quant::GgufValue* value = find(key);
  if (value == nullptr) return otherwise;
  if (const auto number = value->number()) return *number;
  fault(key, fmt::format("expected a number, got {}", gguf_type_name(value->type())));
  return otherwise;
}

bool GgufKeys::boolean_or(std::string_view key, bool otherwise) {
  const quant::GgufValue* value = find(key);
  if (value == nullptr) return otherwise;
  if (const auto boolean = value->boolean()) return *boolean;
  fault(key, fmt::format("expected a bool, got {}", gguf_type_name(value->type())));
  return otherwise;
}

std::optional<std::string> GgufKeys::text(std::string_view key) {
  const quant::GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const std::string* text = value->text()) return *text;
  fault(key, fmt::format("expected a string, got {}", gguf_type_name(value->type())));
  return std::nullopt;
}

const quant::GgufArray* GgufKeys::strings(std::string_view key) {
  return array(key, true);
}

const quant::GgufArray* GgufKeys::integers(std::string_view key) {
  return array(key, false);
}

const quant::GgufArray* GgufKeys::array(std::string_view key, bool of_strings) {
  const quant::GgufValue* value = find(key);
  if (value == nullptr) {
    fault(key, "is missing");
    return nullptr;
  }
  using quant::GgufType;
  const quant::GgufArray* array = value->array();
  const bool fits =
      array != nullptr && (of_strings ? array->element == GgufType::kString
                                      : array->element != GgufType::kString && array->element != GgufType::kF32 &&
                                            array->element != GgufType::kF64 && array->element != GgufType::kBool);
  if (fits) return array;
  fault(key, fmt::format("expected an array of {}, got {}", of_strings ? "strings" : "integers",
                         array != nullptr ? fmt::format("an array of {}", gguf_type_name(array->element))
                                          : std::string(gguf_type_name(value->type()))));
  return nullptr;
}

}  // namespace moraine::runtime
