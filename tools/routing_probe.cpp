#include "tools/routing_probe.h"

#include <utility>
#include <vector>

namespace moraine::tools {
namespace {

class ProbedDense final : public runtime::DenseBackend {
 public:
  ProbedDense(std::shared_ptr<runtime::DenseBackend> backend, RoutingListener& listener)
      : backend_(std::move(backend)), listener_(listener) {}

  std::unique_ptr<runtime::KvCache> make_cache() override { return backend_->make_cache(); }
  int32_t max_rows() const override { return backend_->max_rows(); }
  void begin_step(const runtime::StepBatch& batch) override { backend_->begin_step(batch); }
  void attention(int layer) override { backend_->attention(layer); }
  void dense_ffn(int layer) override { backend_->dense_ffn(layer); }
  void predict_route(int layer, std::span<const float> routed, std::span<float> logits) override {
    backend_->predict_route(layer, routed, logits);
  }
  void shared_expert(int layer) override { backend_->shared_expert(layer); }
  void head(std::span<const int32_t> rows, std::span<float> logits) override { backend_->head(rows, logits); }
  void read_hidden(std::span<float> hidden) override { backend_->read_hidden(hidden); }

  void route(int layer, std::span<float> normed, std::span<float> logits) override {
    backend_->route(layer, normed, logits);
    hidden_.resize(normed.size());
    backend_->read_hidden(hidden_);
    listener_.routed(layer, hidden_, normed, logits);
  }
  void combine(int layer, std::span<const float> routed) override {
    backend_->combine(layer, routed);
    hidden_.resize(routed.size());
    backend_->read_hidden(hidden_);
    with_shared_.assign(hidden_.begin(), hidden_.end());
    for (size_t i = 0; i < routed.size(); ++i) with_shared_[i] -= routed[i];
    listener_.combined(layer, with_shared_, hidden_);
  }

 private:
  std::shared_ptr<runtime::DenseBackend> backend_;
  RoutingListener& listener_;
  std::vector<float> hidden_, with_shared_;  // [rows, hidden]
};

}  // namespace

std::shared_ptr<runtime::DenseBackend> probed(std::shared_ptr<runtime::DenseBackend> backend,
                                              RoutingListener& listener) {
  return std::make_shared<ProbedDense>(std::move(backend), listener);
}

}  // namespace moraine::tools
