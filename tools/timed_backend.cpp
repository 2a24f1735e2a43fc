#include "tools/timed_backend.h"

#include <chrono>
#include <utility>

namespace moraine::tools {
namespace {

/// Adds the time of its life to one kind.
class Stopwatch {
 public:
  Stopwatch(const SecondsClock& clock, double& seconds) : clock_(clock), seconds_(seconds), start_s_(clock()) {}
  ~Stopwatch() { seconds_ += clock_() - start_s_; }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  const SecondsClock& clock_;
  double& seconds_;
  double start_s_;
};

class TimedDense final : public runtime::DenseBackend {
 public:
  TimedDense(std::shared_ptr<runtime::DenseBackend> backend, LayerTimes& times, SecondsClock clock)
      : backend_(std::move(backend)), times_(times), clock_(std::move(clock)) {}

  std::unique_ptr<runtime::KvCache> make_cache() override { return backend_->make_cache(); }
  int32_t max_rows() const override { return backend_->max_rows(); }

  void begin_step(const runtime::StepBatch& batch) override {
    const Stopwatch watch = time(LayerKind::kEmbed);
    backend_->begin_step(batch);
  }
  void attention(int layer) override {
    const Stopwatch watch = time(LayerKind::kAttention);
    backend_->attention(layer);
  }
  void dense_ffn(int layer) override {
    const Stopwatch watch = time(LayerKind::kDenseFfn);
    backend_->dense_ffn(layer);
  }
  void route(int layer, std::span<float> normed, std::span<float> logits) override {
    const Stopwatch watch = time(LayerKind::kRoute);
    backend_->route(layer, normed, logits);
  }
  void predict_route(int layer, std::span<float> logits) override {
    const Stopwatch watch = time(LayerKind::kRoute);
    backend_->predict_route(layer, logits);
  }
  void shared_expert(int layer) override {
    const Stopwatch watch = time(LayerKind::kShared);
    backend_->shared_expert(layer);
  }
  void combine(int layer, std::span<const float> routed) override {
    const Stopwatch watch = time(LayerKind::kShared);
    backend_->combine(layer, routed);
  }
  void head(std::span<const int32_t> rows, std::span<float> logits) override {
    const Stopwatch watch = time(LayerKind::kHead);
    backend_->head(rows, logits);
  }
  void read_hidden(std::span<float> hidden) override { backend_->read_hidden(hidden); }

 private:
  Stopwatch time(LayerKind kind) { return {clock_, times_.seconds[kind]}; }

  std::shared_ptr<runtime::DenseBackend> backend_;
  LayerTimes& times_;
  SecondsClock clock_;
};

class TimedExperts final : public runtime::ExpertBackend {
 public:
  TimedExperts(std::shared_ptr<runtime::ExpertBackend> backend, LayerTimes& times, SecondsClock clock)
      : backend_(std::move(backend)), times_(times), clock_(std::move(clock)) {}

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
    const Stopwatch watch = time();
    backend_->compute_experts(leases, uses);
  }
  void finish_experts(std::span<float> routed) override {
    const Stopwatch watch = time();
    backend_->finish_experts(routed);
  }

 private:
  Stopwatch time() { return {clock_, times_.seconds[LayerKind::kRouted]}; }

  std::shared_ptr<runtime::ExpertBackend> backend_;
  LayerTimes& times_;
  SecondsClock clock_;
};

}  // namespace

SecondsClock steady_seconds() {
  return [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
}

double LayerTimes::total_s() const {
  double total = 0.0;
  for (const LayerKind kind : kLayerKinds) total += seconds[kind];
  return total;
}

std::shared_ptr<runtime::DenseBackend> timed(std::shared_ptr<runtime::DenseBackend> backend, LayerTimes& times,
                                             SecondsClock clock) {
  return std::make_shared<TimedDense>(std::move(backend), times, std::move(clock));
}

std::shared_ptr<runtime::ExpertBackend> timed(std::shared_ptr<runtime::ExpertBackend> backend, LayerTimes& times,
                                              SecondsClock clock) {
  return std::make_shared<TimedExperts>(std::move(backend), times, std::move(clock));
}

}  // namespace moraine::tools
