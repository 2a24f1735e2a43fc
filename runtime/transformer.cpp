#include "runtime/transformer.h"

namespace moraine::runtime {

Transformer::Transformer(const Model& model, DenseBackend& dense, ExpertBackend& experts, offload::ExpertStore& store,
                         std::vector<quant::ExpertLayout> layouts, std::shared_ptr<const LinearPredictor> trained)
    : model_(model),
      dense_(dense),
      layouts_(std::move(layouts)),
      moe_layer_(model, dense, experts, store, layouts_, std::move(trained)),
      streamed_ffn_(model, dense, experts, store, layouts_) {}

void Transformer::step(const StepBatch& batch, std::span<const int32_t> logit_rows, std::span<float> logits,
                       const std::function<bool()>& stop, StepObserver* observer) {
  try {
    walk(batch, stop, observer);
    if (!logit_rows.empty()) dense_.head(logit_rows, logits);
  } catch (...) {
    for (const SequenceSlice& slice : batch.slices) slice.cache->truncate(slice.first_position);
    throw;
  }
}

void Transformer::walk(const StepBatch& batch, const std::function<bool()>& stop, StepObserver* observer) {
  const auto row_count = static_cast<int32_t>(batch.token_ids.size());
  const auto show_hidden = [&](int layer_count) {
    if (observer == nullptr || !observer->wants_hidden()) return;
    hidden_.resize(batch.token_ids.size() * static_cast<size_t>(model_.config.hidden_size));
    dense_.read_hidden(hidden_);
    observer->hidden(layer_count, hidden_);
  };
  dense_.begin_step(batch);
  moe_layer_.hint_next(-1, true, row_count);
  show_hidden(0);
  for (int layer = 0; layer < model_.config.num_hidden_layers; ++layer) {
    if (stop && stop()) throw StopRequested();
    dense_.attention(layer);
    if (model_.config.is_moe_layer(layer)) {
      const std::span<const RoutedExpert> chosen = moe_layer_.run(layer, row_count);
      if (observer != nullptr) observer->routed(layer, chosen);
    } else if (model_.streams_ffn(layer)) {
      streamed_ffn_.run(layer, row_count);
    } else {
      moe_layer_.hint_next(layer, false, row_count);
      dense_.dense_ffn(layer);
      moe_layer_.hint_next(layer, true, row_count);
    }
    show_hidden(layer + 1);
  }
}

}  // namespace moraine::runtime
