#include "cpu/onednn_matmul.h"

#include <tbb/task_arena.h>

#include <dnnl.hpp>

#include "quant/error.h"

namespace moraine::cpu {
namespace {

void multiply(const float* x, const float* w, int64_t tokens, int64_t rows, int64_t cols, float* y) {
  using dnnl::memory;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto plain = [](int64_t first, int64_t second) {
    return memory::desc({first, second}, memory::data_type::f32, memory::format_tag::ab);
  };
  // oneDNN's handles are not const, but sources are only read.
  const memory source(plain(tokens, cols), engine, const_cast<float*>(x));
  const memory weights(plain(cols, rows), engine, const_cast<float*>(w));
  const memory result(plain(tokens, rows), engine, y);
  const dnnl::matmul::primitive_desc description(engine, source.get_desc(), weights.get_desc(), result.get_desc());
  dnnl::matmul(description)
      .execute(stream, {{DNNL_ARG_SRC, source}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, result}});
  stream.wait();
}

}  // namespace

void onednn_matmul(const float* x, const float* w, int64_t tokens, int64_t rows, int64_t cols, float* y) {
  tbb::task_arena one_thread(1);
  try {
    one_thread.execute([&] { multiply(x, w, tokens, rows, cols, y); });
  } catch (const dnnl::error& error) {
    throw quant::Error(quant::ErrorKind::kNotEnough,
                       {.what = "oneDNN could not multiply matrices", .got = error.what()});
  }
}

}  // namespace moraine::cpu
