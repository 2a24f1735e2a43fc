#pragma once

#include <array>
#include <cstddef>

namespace moraine::tools {

/// The parts of a step that `bench` tells apart.
enum class LayerKind { kEmbed, kAttention, kDenseFfn, kRoute, kShared, kRouted, kHead };
inline constexpr std::array kLayerKinds = {LayerKind::kEmbed, LayerKind::kAttention, LayerKind::kDenseFfn,
                                           LayerKind::kRoute, LayerKind::kShared,    LayerKind::kRouted,
                                           LayerKind::kHead};

constexpr const char* layer_kind_name(LayerKind kind) {
  constexpr std::array kNames = {"embed", "attention", "dense FFN", "route", "shared", "routed", "head"};
  return kNames[static_cast<size_t>(kind)];
}

/// One value for each kind.
template <typename Value>
class PerKind {
 public:
  Value& operator[](LayerKind kind) { return values_[static_cast<size_t>(kind)]; }
  const Value& operator[](LayerKind kind) const { return values_[static_cast<size_t>(kind)]; }

 private:
  std::array<Value, kLayerKinds.size()> values_ = {};
};

}  // namespace moraine::tools
