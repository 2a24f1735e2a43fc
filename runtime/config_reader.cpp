#include "runtime/config_reader.h"

#include <fmt/format.h>

#include "quant/error.h"

namespace moraine::runtime {

using quant::Json;

ConfigReader::ConfigReader(const Json& object, std::string prefix) : object_(object), prefix_(std::move(prefix)) {}

const Json* ConfigReader::find(const char* name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void ConfigReader::fault(const char* name, const std::string& text) {
  faults_.push_back(fmt::format("{}{}: {}", prefix_, name, text));
}

void ConfigReader::take_faults_of(const ConfigReader& nested) {
  faults_.insert(faults_.end(), nested.faults_.begin(), nested.faults_.end());
}

std::optional<int64_t> ConfigReader::checked_integer(const char* name, const Json& value, int64_t least, int64_t most) {
  if (!value.is_number_integer()) {
    fault(name, fmt::format("expected an integer, got {}", quant::printable(value.dump())));
    return std::nullopt;
  }
  const bool too_large = value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(most);
  if (too_large || value.get<int64_t>() < least || value.get<int64_t>() > most) {
    fault(name, fmt::format("expected {} to {}, got {}", least, most, value.dump()));
    return std::nullopt;
  }
  return value.get<int64_t>();
}

std::optional<double> ConfigReader::checked_number(const char* name, const Json& value, double least, double most) {
  if (!value.is_number()) {
    fault(name, fmt::format("expected a number, got {}", quant::printable(value.dump())));
    return std::nullopt;
  }
  const double number = value.get<double>();
  if (!(number >= least && number <= most)) {
    fault(name, fmt::format("expected {} to {}, got {}", least, most, value.dump()));
    return std::nullopt;
  }
  return number;
}

int64_t ConfigReader::integer(const char* name, int64_t least, int64_t most) {
  const Json* value = find(name);
  if (value == nullptr) {
    fault(name, "missing");
    return least;
  }
  return checked_integer(name, *value, least, most).value_or(least);
}

int64_t ConfigReader::integer_or(const char* name, int64_t least, int64_t most, int64_t otherwise) {
  const Json* value = find(name);
  return value == nullptr ? otherwise : checked_integer(name, *value, least, most).value_or(otherwise);
}

double ConfigReader::number(const char* name, double least, double most) {
  const Json* value = find(name);
  if (value == nullptr) {
    fault(name, "missing");
    return least;
  }
  return checked_number(name, *value, least, most).value_or(least);
}

double ConfigReader::number_or(const char* name, double least, double most, double otherwise) {
  const Json* value = find(name);
  return value == nullptr ? otherwise : checked_number(name, *value, least, most).value_or(otherwise);
}

bool ConfigReader::boolean_or(const char* name, bool otherwise) {
  const Json* value = find(name);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) {
    fault(name, fmt::format("expected true or false, got {}", quant::printable(value->dump())));
    return otherwise;
  }
  return value->get<bool>();
}

std::string ConfigReader::text_or(const char* name, const std::string& otherwise) {
  const Json* value = find(name);
  if (value == nullptr) return otherwise;
  if (!value->is_string()) {
    fault(name, fmt::format("expected a string, got {}", quant::printable(value->dump())));
    return otherwise;
  }
  return value->get<std::string>();
}

void ConfigReader::expect_text(const char* name, const std::string& supported) {
  const std::string value = text_or(name, supported);
  if (value == supported) return;
  fault(name, fmt::format("'{}' is not supported; this version knows '{}'", quant::printable(value), supported));
}

void ConfigReader::expect_boolean(const char* name, bool supported) {
  if (boolean_or(name, supported) != supported) fault(name, fmt::format("only {} is supported", supported));
}

const Json* ConfigReader::object_or_null(const char* name) {
  const Json* value = find(name);
  if (value != nullptr && !value->is_object()) {
    fault(name, fmt::format("expected an object, got {}", quant::printable(value->dump())));
    return nullptr;
  }
  return value;
}

std::vector<int32_t> ConfigReader::integer_list(const char* name, int32_t least, int32_t most) {
  std::vector<int32_t> list;
  const Json* value = find(name);
  if (value == nullptr) return list;
  const auto add = [&](const Json& item) {
    if (const auto number = checked_integer(name, item, least, most)) list.push_back(static_cast<int32_t>(*number));
  };
  if (value->is_array()) {
    for (const Json& item : *value) add(item);
  } else {
    add(*value);
  }
  return list;
}

}  // namespace moraine::runtime
