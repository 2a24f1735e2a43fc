// Arbitrary bytes as a safetensors file: the only ways out are a valid table of tensors and quant::Error.

#include <cstddef>
#include <cstdint>
#include <span>

#include "fuzz/safetensors_mutator.h"
#include "quant/error.h"
#include "quant/safetensors.h"

using moraine::quant::BlockFormats;
using moraine::quant::Error;
using moraine::quant::parse_safetensors_header;
using moraine::quant::safetensors_header_bytes;

namespace {

void parse(const uint8_t* data, size_t n_bytes, BlockFormats block_formats) {
  const std::span bytes = std::as_bytes(std::span(data, n_bytes));
  try {
    const uint64_t header_bytes = safetensors_header_bytes(bytes, n_bytes, "fuzz");
    const std::string_view header(reinterpret_cast<const char*>(data) + 8, header_bytes);
    uint64_t end = 8 + header_bytes;
    for (const auto& tensor : parse_safetensors_header(header, end, n_bytes, "fuzz", block_formats)) {
      MORAINE_CHECK(tensor.offset == end);
      MORAINE_CHECK(tensor.size_bytes <= n_bytes - end);
      end += tensor.size_bytes;
    }
    MORAINE_CHECK(end == n_bytes);
  } catch (const Error&) {
    return;  // refused with a message, as it should be
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n_bytes) {
  parse(data, n_bytes, BlockFormats::kRefused);
  parse(data, n_bytes, BlockFormats::kAllowed);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t n_bytes, size_t max_bytes, unsigned seed) {
  return moraine::fuzz::mutate_safetensors_input(data, n_bytes, max_bytes, seed);
}
