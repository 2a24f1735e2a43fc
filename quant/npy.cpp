#include "quant/npy.h"

#include <fmt/format.h>

#include <bit>
#include <string>

#include "quant/error.h"
#include "quant/file_io.h"

namespace moraine::quant {
namespace {

static_assert(std::endian::native == std::endian::little);

/// Magic, version, u16 length, and a Python dict padded with spaces and a newline to a multiple of 64 bytes in all.
std::string npy_header(int64_t rows, int64_t cols) {
  constexpr size_t kPrefixBytes = 10;
  constexpr size_t kAlignment = 64;
  std::string dict = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, cols);
  const size_t total_bytes = (kPrefixBytes + dict.size() + 1 + kAlignment - 1) / kAlignment * kAlignment;
  dict.resize(total_bytes - kPrefixBytes - 1, ' ');
  dict += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(dict.size() & 0xff);
  header += static_cast<char>(dict.size() >> 8);
  return header + dict;
}

}  // namespace

void write_npy_f32(const std::filesystem::path& file, std::span<const float> values, int64_t rows, int64_t cols) {
  MORAINE_CHECK(rows >= 0 && cols >= 0);
  MORAINE_CHECK(values.size() == static_cast<uint64_t>(rows) * static_cast<uint64_t>(cols));
  AtomicFile out(file);
  out.append(npy_header(rows, cols));
  out.append(std::as_bytes(values));
  out.finish();
}

}  // namespace moraine::quant
