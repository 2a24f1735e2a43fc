#include "tools/ridge.h"

#include <algorithm>
#include <cmath>

#include "quant/error.h"

namespace moraine::tools {
namespace {

double dot(const double* a, const double* b, size_t count) {
  double sum = 0.0;
  for (size_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

/// A [n × n] := its lower Cholesky factor. A is positive definite.
void factor(std::vector<double>& a, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      const double rest = a[i * n + j] - dot(&a[i * n], &a[j * n], j);
      if (i == j) MORAINE_CHECK(rest > 0.0);
      a[i * n + j] = i == j ? std::sqrt(rest) : rest / a[j * n + j];
    }
  }
}

/// b := (L·Lᵀ)⁻¹ b
void solve(const std::vector<double>& lower, std::vector<double>& b, size_t n) {
  for (size_t i = 0; i < n; ++i) b[i] = (b[i] - dot(&lower[i * n], b.data(), i)) / lower[i * n + i];
  for (size_t i = n; i-- > 0;) {
    b[i] /= lower[i * n + i];
    for (size_t j = 0; j < i; ++j) b[j] -= lower[i * n + j] * b[i];
  }
}

/// V·Vᵀ + λ·I of vectors [count × length].
std::vector<double> gram(const std::vector<double>& vectors, size_t count, size_t length, double lambda) {
  std::vector<double> products(count * count);
  for (size_t i = 0; i < count; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      products[i * count + j] = products[j * count + i] = dot(&vectors[i * length], &vectors[j * length], length);
    }
    products[i * count + i] += lambda;
  }
  return products;
}

}  // namespace

std::vector<float> ridge_fit(std::span<const float> x, std::span<const float> y, int64_t inputs, int64_t outputs,
                             double strength) {
  MORAINE_CHECK(inputs > 0 && outputs > 0 && strength > 0.0);
  const auto h = static_cast<size_t>(inputs), e = static_cast<size_t>(outputs), n = x.size() / h;
  MORAINE_CHECK(n > 0 && x.size() == n * h && y.size() == n * e);
  double squares = 0.0;
  for (const float value : x) squares += static_cast<double>(value) * value;
  const double lambda = std::max(strength * squares / static_cast<double>(h), 1e-12);
  const bool by_inputs = h <= n;
  const size_t side = by_inputs ? h : n, length = by_inputs ? n : h;
  std::vector<double> vectors(x.size());  // [side × length]: Xᵀ or X
  for (size_t row = 0; row < n; ++row) {
    for (size_t i = 0; i < h; ++i) vectors[by_inputs ? i * n + row : row * h + i] = x[row * h + i];
  }
  std::vector<double> lower = gram(vectors, side, length, lambda);
  factor(lower, side);
  std::vector<float> weights(e * h);
  std::vector<double> target(n), b(side);
  for (size_t output = 0; output < e; ++output) {
    for (size_t row = 0; row < n; ++row) target[row] = y[row * e + output];
    for (size_t i = 0; i < side; ++i) b[i] = by_inputs ? dot(&vectors[i * n], target.data(), n) : target[i];
    solve(lower, b, side);
    for (size_t i = 0; i < h; ++i) {
      double weight = 0.0;
      if (by_inputs) {
        weight = b[i];
      } else {
        for (size_t row = 0; row < n; ++row) weight += vectors[row * h + i] * b[row];
      }
      weights[output * h + i] = static_cast<float>(weight);
    }
  }
  return weights;
}

}  // namespace moraine::tools
