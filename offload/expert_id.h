#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace moraine::offload {

/// A routed expert: layer as in config.json (counted from 0 over all layers), expert within the layer.
struct ExpertId {
  int32_t layer = 0;
  int32_t expert = 0;
  auto operator<=>(const ExpertId&) const = default;
};

}  // namespace moraine::offload

template <>
struct std::hash<moraine::offload::ExpertId> {
  size_t operator()(const moraine::offload::ExpertId& id) const noexcept {
    return static_cast<size_t>(id.layer) * 0x9e3779b97f4a7c15u ^ static_cast<size_t>(id.expert);
  }
};
