#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fuzz/json_mutator.h"
#include "quant/error.h"
#include "quant/expert_pack.h"

/// Arbitrary bytes as moraine_pack.json: either a valid index, whose promises are checked, or a quant::Error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moraine::quant;
  try {
    const PackIndex index = PackIndex::parse({reinterpret_cast<const char*>(data), size}, PackIndex::kFileName);
    int previous = -1;
    for (const PackedLayer& layer : index.layers) {
      const ExpertLayout& layout = layer.layout;
      const bool sound = layer.layer > previous && !layer.checksums.empty() &&
                         layer.file.find('/') == std::string::npos && layer.file != ".." &&
                         layout.record_bytes % 4096 == 0 && layout.down_offset_bytes < layout.record_bytes &&
                         layout == ExpertLayout::make(layout.gate, layout.up, layout.down);
      MORAINE_CHECK(sound);
      previous = layer.layer;
    }
  } catch (const Error&) {
    // A refusal is the expected outcome.
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t n_bytes, size_t max_bytes, unsigned seed) {
  return moraine::fuzz::mutate_json_input(data, n_bytes, max_bytes, seed);
}
