#pragma once

#include <fmt/format.h>

#include <string>

#include "offload/expert_id.h"

namespace moraine::offload {

/// How messages call an expert: "layer 3 expert 5".
inline std::string expert_name(ExpertId id) {
  return fmt::format("layer {} expert {}", id.layer, id.expert);
}

}  // namespace moraine::offload
