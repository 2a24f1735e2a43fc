#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "offload/expert_store.h"
#include "runtime/backend.h"
#include "runtime/expert_source.h"
#include "runtime/generator.h"
#include "runtime/model.h"
#include "runtime/model_text.h"
#include "runtime/session.h"
#include "runtime/transformer.h"

namespace moraine::runtime {

/// What an engine is made of. The composition root (tools/engine_setup) chooses backends and budgets; a test may hand
/// in twins.
struct EngineParts {
  ModelText text;
  std::shared_ptr<const Model> model;
  ExpertSource experts;
  std::unique_ptr<offload::ExpertStore> store;
  std::shared_ptr<DenseBackend> dense;
  std::shared_ptr<ExpertBackend> expert_backend;
  std::shared_ptr<const LinearPredictor> trained_predictor = {};  ///< may be null
  int64_t context_tokens = 0;  ///< that memory was planned for; 0: as many as the model knows
};

/// A model ready to answer: the one header an embedder includes. Not thread-safe: one step at a time.
class Engine {
 public:
  explicit Engine(EngineParts parts);

  const ModelConfig& config() const { return parts_.model->config; }
  /// Most tokens of a sequence.
  int64_t context_tokens() const;
  const Model& model() const { return *parts_.model; }
  const ModelText& text() const { return parts_.text; }
  const Tokenizer& tokenizer() const { return parts_.text.tokenizer; }
  const ExpertSource& experts() const { return parts_.experts; }
  offload::ExpertStore& store() { return *parts_.store; }
  Transformer& transformer() { return transformer_; }

  Session new_session() { return Session(parts_.dense->make_cache()); }

  /// The prompt of a conversation through the model's chat template, ending where the model is to answer. Text of
  /// messages never becomes a control token. Throws quant::Error(kBadFile) if the model has no chat template.
  std::vector<int32_t> chat_prompt(std::span<const Message> messages) const;
  /// The prompt of plain text: BOS (if the model has one) and the text, in which no added token is recognised.
  std::vector<int32_t> raw_prompt(std::string_view text) const;

 private:
  EngineParts parts_;
  Transformer transformer_;
};

}  // namespace moraine::runtime
