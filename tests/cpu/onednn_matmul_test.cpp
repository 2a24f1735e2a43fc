#include "cpu/onednn_matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/isa.h"
#include "support/random_matrix.h"
#include "support/tolerance.h"

namespace moraine::cpu {
namespace {

TEST(OnednnMatmul, AndTheOwnKernelAreBothNearTheExactProduct) {
  testing::RandomValues random(1);
  for (const int64_t cols : {1, 31, 256, 513, 2048}) {
    for (const int64_t tokens : {1, 7, 33}) {
      const int64_t rows = 48;
      const std::vector<float> x = testing::random_values(tokens * cols, 1.0, random);
      const std::vector<float> w = testing::random_values(cols * rows, 1.0, random);
      std::vector<float> theirs(static_cast<size_t>(tokens * rows)), own(theirs.size());
      onednn_matmul(x.data(), w.data(), tokens, rows, cols, theirs.data());
      select_kernels().multiply({w.data(), kLanes, rows, rows / kLanes}, x.data(), cols, tokens, cols, own.data(),
                                rows);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t r = 0; r < rows; ++r) {
          double sum = 0.0, sum_abs = 0.0;
          for (int64_t k = 0; k < cols; ++k) {
            const double term =
                double{x[static_cast<size_t>(t * cols + k)]} * double{w[static_cast<size_t>(k * rows + r)]};
            sum += term;
            sum_abs += std::abs(term);
          }
          const double bound = testing::dot_tolerance(cols, sum_abs);
          EXPECT_NEAR(theirs[static_cast<size_t>(t * rows + r)], sum, bound);
          EXPECT_NEAR(own[static_cast<size_t>(t * rows + r)], sum, bound);
        }
      }
    }
  }
}

}  // namespace
}  // namespace moraine::cpu
