#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moraine::tools {

/// W [outputs × inputs] that minimises Σ‖y − W·x‖² + λ‖W‖² over rows of x [rows × inputs] and y [rows × outputs], with
/// λ = `strength` × the mean square of an input over all rows. By Cholesky of the smaller of XᵀX and XXᵀ, in f64.
std::vector<float> ridge_fit(std::span<const float> x, std::span<const float> y, int64_t inputs, int64_t outputs,
                             double strength);

}  // namespace moraine::tools
