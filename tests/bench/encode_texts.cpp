// The other half of tests/data/tokenizers/compare.py: encodes texts from stdin with Moraine's tokenizer.
//   encode_texts MODEL_DIRECTORY < texts > ids
// Both are streams of little-endian 32-bit numbers and bytes: per text its length and bytes; per answer the count and
// the ids. Added tokens are recognised, as Hugging Face's `encode` does.
#include <cstdio>
#include <string>
#include <vector>

#include "quant/error.h"
#include "runtime/tokenizer.h"

namespace {

bool read_exactly(void* to, size_t size) {
  return std::fread(to, 1, size, stdin) == size;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: encode_texts MODEL_DIRECTORY < texts > ids\n", stderr);
    return 2;
  }
  try {
    const auto tokenizer = moraine::runtime::Tokenizer::from_directory(argv[1]);
    uint32_t size = 0;
    std::string text;
    while (read_exactly(&size, sizeof(size))) {
      text.resize(size);
      if (!read_exactly(text.data(), size)) return 3;
      const std::vector<int32_t> ids = tokenizer.encode(text, moraine::runtime::AddedTokens::kParse);
      const auto count = static_cast<uint32_t>(ids.size());
      std::fwrite(&count, sizeof(count), 1, stdout);
      std::fwrite(ids.data(), sizeof(int32_t), ids.size(), stdout);
    }
  } catch (const moraine::quant::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
  return 0;
}
