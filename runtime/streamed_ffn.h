#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "offload/expert_store.h"
#include "quant/expert_pack.h"
#include "runtime/backend.h"
#include "runtime/model.h"

namespace moraine::runtime {

/// The feed-forward networks of a dense model that does not fit into RAM: each is the one record of its layer in the
/// expert store, an expert that every row chooses. What comes next is certain, so the layers behind the running one are
/// asked for ahead, over the end of the model into its next walk, until kMissesAhead of them have to be read. The store
/// takes every such request for a scan (it wants all of its layer), which keeps a fixed part of the layers in RAM:
/// budget − (1 + kMissesAhead) of them are found there in every walk, where LRU would find none.
class StreamedFfn {
 public:
  /// One is read while the next one waits for the drive: it is never idle.
  static constexpr int kMissesAhead = 2;
  /// How many of `layers` every walk finds in RAM, at least, if the store has so many slots.
  static constexpr int64_t kept_layers(int64_t slots, int64_t layers) {
    return slots >= layers ? layers : std::max<int64_t>(0, slots - 1 - kMissesAhead);
  }

  /// `layouts`: per decoder layer how its record is laid out. All outlive this, the store's records too.
  StreamedFfn(const Model& model, DenseBackend& dense, ExpertBackend& experts, offload::ExpertStore& store,
              std::span<const quant::ExpertLayout> layouts)
      : model_(model), dense_(dense), experts_(experts), store_(store), layouts_(layouts) {}

  /// x += FFN(RMSNorm(x)) of a layer whose FFN is not in the model. Throws quant::Error if it can't be read.
  void run(int layer, int32_t row_count);

 private:
  /// A layer asked for.
  struct Request {
    int layer = 0;
    bool was_missing = false;
    offload::LeaseStream stream;
  };
  Request request(int layer);
  Request take(int layer);
  void look_ahead(int layer);
  int next(int layer) const { return (layer + 1) % static_cast<int>(model_.layers.size()); }

  const Model& model_;
  DenseBackend& dense_;
  ExpertBackend& experts_;
  offload::ExpertStore& store_;
  std::span<const quant::ExpertLayout> layouts_;  // [num_hidden_layers]
  std::deque<Request> ahead_;                     // neighbouring layers, in order
  std::vector<float> normed_;                     // [rows, hidden]
  std::vector<float> output_;                     // [rows, hidden]
  std::vector<ExpertUse> uses_;                   // [rows]
};

}  // namespace moraine::runtime
