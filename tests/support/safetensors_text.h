#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace moraine::testing {

/// The bytes of a safetensors file: length, header text, and `data`.
inline std::string safetensors_file(std::string_view header, std::string_view data = {}) {
  std::string bytes(8, '\0');
  const uint64_t header_bytes = header.size();
  std::memcpy(bytes.data(), &header_bytes, sizeof header_bytes);
  return bytes.append(header).append(data);
}

/// One entry of a header, e.g. entry("w", "F32", "2,3", 0, 24).
inline std::string entry(std::string_view name, std::string_view dtype, std::string_view shape, uint64_t begin,
                         uint64_t end) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", name, dtype, shape, begin, end);
}

}  // namespace moraine::testing
