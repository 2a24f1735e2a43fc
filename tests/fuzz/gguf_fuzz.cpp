// Arbitrary bytes as a GGUF file: the only ways out are valid metadata and tensors, and quant::Error.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "fuzz/gguf_mutator.h"
#include "quant/error.h"
#include "quant/gguf.h"

using moraine::quant::Error;
using moraine::quant::GgufArray;
using moraine::quant::GgufPart;
using moraine::quant::GgufType;
using moraine::quant::GgufValue;

namespace {

/// Asks for everything that a value can be asked for.
void use(const GgufValue& value) {
  const bool is_one = value.integer() || value.number() || value.boolean() || value.text() != nullptr;
  MORAINE_CHECK(is_one || value.array() != nullptr || value.type() == GgufType::kU64);
  if (const GgufArray* array = value.array()) {
    for (size_t i = 0; i < array->count; ++i) {
      if (array->element == GgufType::kString) {
        (void)array->text(i);
      } else {
        (void)array->integer(i);
      }
    }
  }
  std::string written;
  value.append_to(written);
  MORAINE_CHECK(written.size() >= 5);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n_bytes) {
  const auto read = [&](std::span<std::byte> out, uint64_t offset) {
    MORAINE_CHECK(offset <= n_bytes && out.size() <= n_bytes - offset);
    std::memcpy(out.data(), data + offset, out.size());
  };
  try {
    const GgufPart part = moraine::quant::parse_gguf(read, n_bytes, "fuzz");
    for (const auto& [key, value] : part.metadata) use(value);
    for (const auto& tensor : part.tensors) {
      MORAINE_CHECK(tensor.offset <= n_bytes && tensor.size_bytes <= n_bytes - tensor.offset);
      MORAINE_CHECK(!tensor.shape.empty() && tensor.size_bytes > 0);
    }
  } catch (const Error&) {
    return 0;  // refused with a message, as it should be
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t n_bytes, size_t max_bytes, unsigned seed) {
  return moraine::fuzz::mutate_gguf_input(data, n_bytes, max_bytes, seed);
}
