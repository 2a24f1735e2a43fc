#include "runtime/token_stream.h"

#include <utility>

#include "runtime/utf8.h"

namespace moraine::runtime {

std::string TokenStream::push(int32_t id) {
  held_ += tokenizer_->token_bytes(id);
  const size_t complete_bytes = held_.size() - incomplete_suffix_bytes(held_);
  std::string text = repair_utf8(std::string_view(held_).substr(0, complete_bytes));
  held_.erase(0, complete_bytes);
  return text;
}

std::string TokenStream::finish() {
  return repair_utf8(std::exchange(held_, {}));
}

}  // namespace moraine::runtime
