#include "tools/timed_backend.h"

#include <chrono>
#include <utility>

namespace moraine::tools {
namespace {

/// Tells the sink of the time of its life.
class Stopwatch {
 public:
  Stopwatch(const SecondsClock& clock, CallSink& sink, LayerKind kind, int layer)
      : clock_(clock), sink_(sink), kind_(kind), layer_(layer), begin_s_(clock()) {}
  ~Stopwatch() { sink_.called(kind_, layer_, begin_s_, clock_()); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  const SecondsClock& clock_;
  CallSink& sink_;
  LayerKind kind_;
  int layer_;
  double begin_s_;
};

constexpr int kNoLayer = -1;

class TimedDense final : public runtime::DenseBackend {
 public:
  TimedDense(std::shared_ptr<runtime::DenseBackend> backend, CallSink& sink, SecondsClock clock)
      : backend_(std::move(backend)), sink_(sink), clock_(std::move(clock)) {}

  std::unique_ptr<runtime::KvCache> make_cache() override { return backend_->make_cache(); }
  int32_t max_rows() const override { return backend_->max_rows(); }

  void begin_step(const runtime::StepBatch& batch) override {
    sink_.began_step(static_cast<int32_t>(batch.token_ids.size()));
    const Stopwatch watch = time(LayerKind::kEmbed, kNoLayer);
    backend_->begin_step(batch);
  }
  void attention(int layer) override {
    const Stopwatch watch = time(LayerKind::kAttention, layer);
    backend_->attention(layer);
  }
  void dense_ffn(int layer) override {
    const Stopwatch watch = time(LayerKind::kDenseFfn, layer);
    backend_->dense_ffn(layer);
  }
  void route(int layer, std::span<float> normed, std::span<float> logits) override {
    const Stopwatch watch = time(LayerKind::kRoute, layer);
    backend_->route(layer, normed, logits);
  }
  void predict_route(int layer, std::span<const float> routed, std::span<float> logits) override {
    const Stopwatch watch = time(LayerKind::kRoute, layer);
    backend_->predict_route(layer, routed, logits);
  }
  void shared_expert(int layer) override {
    const Stopwatch watch = time(LayerKind::kShared, layer);
    backend_->shared_expert(layer);
  }
  void combine(int layer, std::span<const float> routed) override {
    const Stopwatch watch = time(LayerKind::kShared, layer);
    backend_->combine(layer, routed);
  }
  void head(std::span<const int32_t> rows, std::span<float> logits) override {
    const Stopwatch watch = time(LayerKind::kHead, kNoLayer);
    backend_->head(rows, logits);
  }
  void read_hidden(std::span<float> hidden) override { backend_->read_hidden(hidden); }

 private:
  Stopwatch time(LayerKind kind, int layer) { return {clock_, sink_, kind, layer}; }

  std::shared_ptr<runtime::DenseBackend> backend_;
  CallSink& sink_;
  SecondsClock clock_;
};

class TimedExperts final : public runtime::ExpertBackend {
 public:
  TimedExperts(std::shared_ptr<runtime::ExpertBackend> backend, CallSink& sink, SecondsClock clock)
      : backend_(std::move(backend)), sink_(sink), clock_(std::move(clock)) {}

  void begin_experts(std::span<const float> normed, int32_t row_count, const quant::ExpertLayout& layout,
                     int32_t slots_per_row) override {
    const Stopwatch watch = time();
    backend_->begin_experts(normed, row_count, layout, slots_per_row);
  }
  void compute_expert(std::span<const std::byte> record, std::span<const runtime::ExpertUse> uses) override {
    const Stopwatch watch = time();
    backend_->compute_expert(record, uses);
  }
  void compute_experts(std::span<const offload::ExpertLease> leases,
                       std::span<const std::span<const runtime::ExpertUse>> uses) override {
    sink_.computed(leases, uses);
    const Stopwatch watch = time();
    backend_->compute_experts(leases, uses);
  }
  void sum_so_far(std::span<float> sum) override { backend_->sum_so_far(sum); }
  void finish_experts(std::span<float> routed) override {
    const Stopwatch watch = time();
    backend_->finish_experts(routed);
  }

 private:
  Stopwatch time() { return {clock_, sink_, LayerKind::kRouted, kNoLayer}; }

  std::shared_ptr<runtime::ExpertBackend> backend_;
  CallSink& sink_;
  SecondsClock clock_;
};

}  // namespace

SecondsClock steady_seconds() {
  return [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
}

void LayerTimes::called(LayerKind kind, int, double begin_s, double end_s) {
  seconds[kind] += end_s - begin_s;
}

double LayerTimes::total_s() const {
  double total = 0.0;
  for (const LayerKind kind : kLayerKinds) total += seconds[kind];
  return total;
}

std::shared_ptr<runtime::DenseBackend> timed(std::shared_ptr<runtime::DenseBackend> backend, CallSink& sink,
                                             SecondsClock clock) {
  return std::make_shared<TimedDense>(std::move(backend), sink, std::move(clock));
}

std::shared_ptr<runtime::ExpertBackend> timed(std::shared_ptr<runtime::ExpertBackend> backend, CallSink& sink,
                                              SecondsClock clock) {
  return std::make_shared<TimedExperts>(std::move(backend), sink, std::move(clock));
}

}  // namespace moraine::tools
