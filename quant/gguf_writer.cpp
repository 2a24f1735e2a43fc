#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "quant/error.h"
#include "quant/file_io.h"
#include "quant/gguf.h"

namespace moraine::quant {
namespace {

constexpr uint64_t kAlignment = 32;  // the format's default
constexpr uint32_t kVersion = 3;

uint64_t aligned(uint64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

std::string header_text(const GgufWriter::Metadata& metadata, const std::vector<TensorInfo>& tensors,
                        const std::filesystem::path& file) {
  std::string text = "GGUF";
  append_number(text, kVersion);
  append_number(text, static_cast<uint64_t>(tensors.size()));
  append_number(text, static_cast<uint64_t>(metadata.size()));
  for (const auto& [key, value] : metadata) {
    append_gguf_string(text, key);
    value.append_to(text);
  }
  uint64_t offset = 0;
  for (const TensorInfo& tensor : tensors) {
    const auto number = ggml_type(tensor.dtype);
    if (!number) {
      throw Error(
          ErrorKind::kBadFile,
          {.what = fmt::format("GGUF has no type {}", dtype_name(tensor.dtype)), .file = file, .item = tensor.name});
    }
    append_gguf_string(text, tensor.name);
    append_number(text, static_cast<uint32_t>(tensor.shape.size()));
    for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) append_number(text, *dim);
    append_number(text, *number);
    append_number(text, offset);
    offset += aligned(tensor.size_bytes);
  }
  text.resize(aligned(text.size()), '\0');
  return text;
}

/// True if the file begins with these bytes and has this size.
bool holds(int fd, std::string_view header, uint64_t size_bytes, const std::filesystem::path& file) {
  if (file_bytes(fd, file) != size_bytes) return false;
  std::string present(header.size(), '\0');
  pread_exact(fd, std::as_writable_bytes(std::span(present)), 0, file);
  return present == header;
}

}  // namespace

struct GgufWriter::Impl {
  /// Where a tensor lies.
  struct Place {
    uint64_t offset = 0;
    uint64_t size_bytes = 0;
    uint64_t missing_bytes = 0;
  };

  std::filesystem::path file, part_file;
  UniqueFd part;
  bool continues = false;
  std::vector<Place> places;  // [n_tensors]
  uint64_t file_size_bytes = 0;
};

GgufWriter::GgufWriter(std::filesystem::path file, const Metadata& metadata, std::vector<TensorInfo> tensors) {
  const std::string header = header_text(metadata, tensors, file);
  uint64_t file_size_bytes = header.size();
  for (const TensorInfo& tensor : tensors) file_size_bytes += aligned(tensor.size_bytes);
  // The reader's rules are the writer's too.
  const auto read = [&](std::span<std::byte> out, uint64_t offset) {
    // A short header is read in one piece that reaches into the tensors.
    const uint64_t count = std::min<uint64_t>(out.size(), header.size() - offset);
    std::memcpy(out.data(), header.data() + offset, count);
  };
  const GgufPart part = parse_gguf(read, file_size_bytes, file);
  std::vector<Impl::Place> places;
  for (size_t i = 0; i < tensors.size(); ++i) {
    MORAINE_CHECK(part.tensors[i].size_bytes == tensors[i].size_bytes);
    places.push_back({part.tensors[i].offset, tensors[i].size_bytes, tensors[i].size_bytes});
  }
  impl_.reset(new Impl{.file = file,
                       .part_file = file,
                       .part = {},
                       .continues = false,
                       .places = std::move(places),
                       .file_size_bytes = file_size_bytes});
  impl_->part_file += ".part";
  impl_->part = open_for_update(impl_->part_file);
  impl_->continues = holds(impl_->part.get(), header, file_size_bytes, impl_->part_file);
  if (impl_->continues) return;
  resize_file(impl_->part.get(), 0, impl_->part_file);
  resize_file(impl_->part.get(), file_size_bytes, impl_->part_file);
  pwrite_all(impl_->part.get(), std::as_bytes(std::span(header)), 0, impl_->part_file);
}

GgufWriter::~GgufWriter() = default;

void GgufWriter::write(size_t tensor, uint64_t offset, std::span<const std::byte> bytes) {
  MORAINE_CHECK(tensor < impl_->places.size());
  const Impl::Place& place = impl_->places[tensor];
  MORAINE_CHECK(offset <= place.size_bytes && bytes.size() <= place.size_bytes - offset);
  pwrite_all(impl_->part.get(), bytes, place.offset + offset, impl_->part_file);
  keep(tensor, bytes.size());
}

bool GgufWriter::continues() const {
  return impl_->continues;
}

void GgufWriter::read(size_t tensor, uint64_t offset, std::span<std::byte> out) const {
  MORAINE_CHECK(tensor < impl_->places.size());
  const Impl::Place& place = impl_->places[tensor];
  MORAINE_CHECK(offset <= place.size_bytes && out.size() <= place.size_bytes - offset);
  pread_exact(impl_->part.get(), out, place.offset + offset, impl_->part_file);
}

void GgufWriter::keep(size_t tensor, uint64_t bytes) {
  MORAINE_CHECK(tensor < impl_->places.size());
  Impl::Place& place = impl_->places[tensor];
  place.missing_bytes -= std::min(place.missing_bytes, bytes);
}

void GgufWriter::finish() {
  for (const Impl::Place& place : impl_->places) MORAINE_CHECK(place.missing_bytes == 0);
  publish_file(impl_->part.get(), impl_->part_file, impl_->file);
}

uint64_t GgufWriter::file_bytes() const {
  return impl_->file_size_bytes;
}

}  // namespace moraine::quant
