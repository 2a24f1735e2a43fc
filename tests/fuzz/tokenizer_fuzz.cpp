// Arbitrary bytes as a tokenizer.json: the only ways out are a tokenizer that keeps its promises and quant::Error.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/json_mutator.h"
#include "quant/error.h"
#include "runtime/token_stream.h"
#include "runtime/tokenizer.h"
#include "runtime/utf8.h"

namespace {

using moraine::runtime::AddedTokens;
using moraine::runtime::Tokenizer;

std::string stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  moraine::runtime::TokenStream token_stream(tokenizer);
  std::string text;
  for (const int32_t id : ids) text += token_stream.push(id);
  return text + token_stream.finish();
}

/// ASCII comes back whatever the file says; other text may be normalised or repaired.
void check_text(const Tokenizer& tokenizer, std::string_view text) {
  for (const auto added : {AddedTokens::kParse, AddedTokens::kAsText}) {
    const std::vector<int32_t> ids = tokenizer.encode(text, added);
    for (const int32_t id : ids) {
      MORAINE_CHECK(id >= 0 && id < tokenizer.vocab_size());
      MORAINE_CHECK(!tokenizer.token_bytes(id).empty());
      MORAINE_CHECK(added == AddedTokens::kParse || !tokenizer.is_added(id));
    }
    const std::string decoded = tokenizer.decode(ids);
    MORAINE_CHECK(moraine::runtime::is_valid_utf8(decoded));
    MORAINE_CHECK(stream(tokenizer, ids) == decoded);
    const bool is_ascii = std::ranges::all_of(text, [](char byte) { return static_cast<unsigned char>(byte) < 0x80; });
    MORAINE_CHECK(!is_ascii || decoded == text);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n_bytes) {
  const std::string_view text(reinterpret_cast<const char*>(data), n_bytes);
  try {
    const Tokenizer tokenizer = Tokenizer::from_json(text, "fuzz");
    check_text(tokenizer, "Hello <think> w\u00f6rld, it's 12345 \u4e2d\u6587\U0001F999 e\u0301\n\n  end");
    check_text(tokenizer, "plain ASCII, don't \x01\t 999\r\n   ");
    check_text(tokenizer, text.substr(0, 4096));
    check_text(tokenizer, text.substr(n_bytes - std::min<size_t>(n_bytes, 512)));
  } catch (const moraine::quant::Error&) {
    return 0;  // refused with a message, as it should be
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t n_bytes, size_t max_bytes, unsigned seed) {
  return moraine::fuzz::mutate_json_input(data, n_bytes, max_bytes, seed);
}
