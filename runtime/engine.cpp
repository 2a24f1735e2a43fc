#include "runtime/engine.h"

#include <algorithm>

#include "quant/error.h"

namespace moraine::runtime {

Engine::Engine(EngineParts parts)
    : parts_(std::move(parts)),
      transformer_(*parts_.model, *parts_.dense, *parts_.expert_backend, *parts_.store, parts_.experts.layouts,
                   parts_.trained_predictor) {}

int64_t Engine::context_tokens() const {
  const int64_t known = config().max_position_embeddings;
  return parts_.context_tokens > 0 ? std::min(parts_.context_tokens, known) : known;
}

std::vector<int32_t> Engine::chat_prompt(std::span<const Message> messages) const {
  if (!parts_.text.chat_template) {
    throw quant::Error(quant::ErrorKind::kBadFile,
                       {.what = "this model has no chat template (chat_template in tokenizer_config.json)",
                        .action = "use `moraine generate --raw`, or add the template that belongs to the model"});
  }
  // Templates print BOS themselves.
  return tokenizer().encode(parts_.text.chat_template->render(messages, /*add_generation_prompt=*/true));
}

std::vector<int32_t> Engine::raw_prompt(std::string_view text) const {
  std::vector<int32_t> ids = tokenizer().encode(text, AddedTokens::kAsText);
  if (const auto bos = tokenizer().special().bos) ids.insert(ids.begin(), *bos);
  return ids;
}

}  // namespace moraine::runtime
