#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/gguf_value.h"

namespace moraine::testing {

/// A GGUF file put together by hand, so that every field can be wrong.
struct GgufBytes {
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t tensor_count = 0;
  uint64_t key_count = 0;
  std::string body = {};  // keys, then tensors
  uint64_t alignment = 32;
  std::string data = {};

  static std::string text(std::string_view bytes) {
    std::string out;
    quant::append_gguf_string(out, bytes);
    return out;
  }
  template <typename Number>
  static std::string number(Number value) {
    std::string out;
    quant::append_number(out, value);
    return out;
  }

  GgufBytes& key(std::string_view name, uint32_t type, std::string_view value) {
    ++key_count;
    body += text(name) + number(type);
    body += value;
    return *this;
  }
  GgufBytes& key(std::string_view name, const quant::GgufValue& value) {
    ++key_count;
    body += text(name);
    value.append_to(body);
    return *this;
  }
  GgufBytes& tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    ++tensor_count;
    body += text(name) + number(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) body += number(dim);
    body += number(type) + number(offset);
    return *this;
  }
  /// Bytes at the end, where tensors lie.
  GgufBytes& bytes(std::string_view more) {
    data += more;
    return *this;
  }

  std::string file() const {
    std::string out = magic + number(version) + number(tensor_count) + number(key_count) + body;
    out.resize((out.size() + alignment - 1) / alignment * alignment, '\0');
    return out + data;
  }
};

}  // namespace moraine::testing
