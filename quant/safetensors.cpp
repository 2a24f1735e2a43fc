#include "quant/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <tuple>
#include <utility>

#include "quant/error.h"
#include "quant/safetensors_header.h"

namespace moraine::quant {
namespace {

static_assert(std::endian::native == std::endian::little, "the container and our reads of it are little-endian");

constexpr uint64_t kLengthBytes = 8;               // of the number in front of the header
constexpr uint64_t kFirstBytes = 64;               // enough to know a Git-LFS pointer
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr const char* kDownloadAgain = "the file is incomplete or damaged: download it again";

[[noreturn]] void refuse(const std::filesystem::path& file, ErrorDetail detail) {
  detail.file = file;
  if (detail.action.empty()) detail.action = kDownloadAgain;
  throw Error(ErrorKind::kBadFile, detail);
}

/// Bytes of a tensor of that type and shape, or nothing if they overflow or are no whole number.
std::optional<uint64_t> bytes_of(DType dtype, const std::vector<int64_t>& shape) {
  uint64_t bits = static_cast<uint64_t>(block_bits(dtype));
  uint64_t elements = 1;
  for (const int64_t dimension : shape) {
    if (__builtin_mul_overflow(elements, static_cast<uint64_t>(dimension), &elements)) return std::nullopt;
  }
  const uint64_t blocks = elements / static_cast<uint64_t>(block_elements(dtype));
  if (__builtin_mul_overflow(blocks, bits, &bits) || bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

/// Sorts by place in the file and refuses holes, overlaps, and an end that is not the file's.
void check_layout(std::vector<HeaderEntry>& entries, uint64_t data_start, uint64_t file_bytes,
                  const std::filesystem::path& file) {
  std::sort(entries.begin(), entries.end(), [](const HeaderEntry& a, const HeaderEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t previous_end = 0;
  for (const HeaderEntry& entry : entries) {
    if (entry.begin != previous_end) {
      refuse(file, {.what = entry.begin > previous_end ? "data_offsets leave a hole before the tensor"
                                                       : "the tensor's data overlap another's",
                    .item = entry.name,
                    .offset = entry.header_offset,
                    .expected = fmt::format("data_offsets to begin at {}", previous_end),
                    .got = fmt::format("{}", entry.begin)});
    }
    previous_end = entry.end;
  }
  const uint64_t data_bytes = file_bytes - data_start;
  if (previous_end == data_bytes) return;
  const bool is_truncated = previous_end > data_bytes;
  refuse(file, {.what = is_truncated ? "the file is truncated" : "there are bytes behind the last tensor",
                .expected = fmt::format("a file of {} bytes", data_start + previous_end),
                .got = fmt::format("{} bytes", file_bytes),
                .action = is_truncated ? "the download is incomplete: download it again" : kDownloadAgain});
}

/// Blocks lie in rows: the last dimension must be whole blocks.
void check_rows(const HeaderEntry& entry, const std::filesystem::path& file) {
  const int64_t block = block_elements(entry.dtype);
  if (block == 1 || (!entry.shape.empty() && entry.shape.back() % block == 0)) return;
  refuse(file,
         {.what = "rows of a block format are no whole number of blocks",
          .item = entry.name,
          .offset = entry.header_offset,
          .expected = fmt::format("a last dimension that is a multiple of {} for {}", block, dtype_name(entry.dtype)),
          .got = fmt::format("[{}]", fmt::join(entry.shape, ", "))});
}

/// The size rules of one entry: begin ≤ end, whole blocks, and as many bytes as type and shape need.
void check_size(const HeaderEntry& entry, const std::filesystem::path& file) {
  if (entry.begin > entry.end) {
    refuse(file, {.what = "data_offsets end before they begin",
                  .item = entry.name,
                  .offset = entry.header_offset,
                  .got = fmt::format("[{}, {}]", entry.begin, entry.end)});
  }
  check_rows(entry, file);
  const std::optional<uint64_t> needed = bytes_of(entry.dtype, entry.shape);
  const std::string type_and_shape = fmt::format("{} [{}]", dtype_name(entry.dtype), fmt::join(entry.shape, ", "));
  if (!needed) {
    refuse(file, {.what = "the shape gives no number of bytes that fits 64 bits",
                  .item = entry.name,
                  .offset = entry.header_offset,
                  .got = printable(type_and_shape)});
  }
  if (entry.end - entry.begin != *needed) {
    refuse(file, {.what = "dtype and shape do not match data_offsets",
                  .item = entry.name,
                  .offset = entry.header_offset,
                  .expected = fmt::format("{} bytes for {}", *needed, printable(type_and_shape)),
                  .got = fmt::format("{} bytes", entry.end - entry.begin)});
  }
}

}  // namespace

uint64_t safetensors_header_bytes(std::span<const std::byte> first_bytes, uint64_t file_bytes,
                                  const std::filesystem::path& file) {
  refuse_lfs_pointer({reinterpret_cast<const char*>(first_bytes.data()), first_bytes.size()}, file);
  if (file_bytes < kLengthBytes || first_bytes.size() < kLengthBytes) {
    refuse(file, {.what = "the file is too short for a safetensors file",
                  .expected = "at least 8 bytes",
                  .got = fmt::format("{} bytes", file_bytes)});
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, first_bytes.data(), sizeof header_bytes);
  if (header_bytes == 0 || header_bytes > kMaxHeaderBytes) {
    refuse(file, {.what = "this is not a safetensors file: impossible header length",
                  .offset = 0,
                  .expected = fmt::format("1 to {} bytes", kMaxHeaderBytes),
                  .got = fmt::format("{}", header_bytes)});
  }
  if (header_bytes > file_bytes - kLengthBytes) {
    refuse(file, {.what = "the file is truncated inside its header",
                  .expected = fmt::format("at least {} bytes", kLengthBytes + header_bytes),
                  .got = fmt::format("{} bytes", file_bytes),
                  .action = "the download is incomplete: download it again"});
  }
  return header_bytes;
}

std::vector<TensorInfo> parse_safetensors_header(std::string_view header, uint64_t data_start, uint64_t file_bytes,
                                                 const std::filesystem::path& file, BlockFormats block_formats) {
  MORAINE_CHECK(header.size() <= data_start && data_start <= file_bytes);
  const uint64_t header_start = data_start - header.size();
  if (!header.starts_with('{')) {
    refuse(file, {.what = "the header does not begin with '{'", .offset = header_start});
  }
  const size_t last = header.find_last_not_of(' ');
  if (header[last] != '}') {
    refuse(file, {.what = "the header does not end with '}' and spaces", .offset = header_start + last});
  }
  std::vector<HeaderEntry> entries = read_header_entries(header, header_start, kMaxHeaderBytes, file, block_formats);
  for (const HeaderEntry& entry : entries) check_size(entry, file);
  check_layout(entries, data_start, file_bytes, file);

  std::vector<TensorInfo> tensors;
  tensors.reserve(entries.size());
  for (HeaderEntry& entry : entries) {
    tensors.push_back({.name = std::move(entry.name),
                       .dtype = entry.dtype,
                       .shape = std::move(entry.shape),
                       .offset = data_start + entry.begin,
                       .size_bytes = entry.end - entry.begin});
  }
  return tensors;
}

std::vector<TensorInfo> read_safetensors_header(int fd, const std::filesystem::path& file, BlockFormats block_formats) {
  const uint64_t size_bytes = file_bytes(fd, file);
  std::array<std::byte, kFirstBytes> storage;
  const auto first_bytes = std::span(storage).first(std::min(size_bytes, kFirstBytes));
  pread_exact(fd, first_bytes, 0, file);
  std::string header(safetensors_header_bytes(first_bytes, size_bytes, file), '\0');
  pread_exact(fd, std::as_writable_bytes(std::span(header)), kLengthBytes, file);
  return parse_safetensors_header(header, kLengthBytes + header.size(), size_bytes, file, block_formats);
}

std::vector<TensorInfo> read_safetensors_header(const std::filesystem::path& file, BlockFormats block_formats) {
  const UniqueFd fd = open_for_read(file);
  return read_safetensors_header(fd.get(), file, block_formats);
}

}  // namespace moraine::quant
