#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "quant/error.h"
#include "quant/file_io.h"
#include "quant/json.h"
#include "quant/safetensors.h"

namespace moraine::quant {
namespace {

constexpr uint64_t kLengthBytes = 8;  // of the number in front of the header
constexpr size_t kDataAlignment = 8;  // writers pad the header so that the data start at such a multiple

/// A name as a JSON string. Throws Error(kBadFile) if it is not UTF-8, which the format cannot hold.
std::string quoted(const std::string& name, const std::filesystem::path& file) {
  try {
    return Json(name).dump();
  } catch (const nlohmann::json::exception&) {
    throw Error(ErrorKind::kBadFile, {.what = "the tensor's name is not valid UTF-8", .file = file, .item = name});
  }
}

/// The header of these tensors in this order, without gaps between them, padded with spaces.
std::string header_text(const std::vector<TensorInfo>& tensors, const std::filesystem::path& file) {
  std::string text = R"({"__metadata__":{"format":"pt"})";
  uint64_t begin = 0;
  for (const TensorInfo& tensor : tensors) {
    uint64_t end = 0;
    MORAINE_CHECK(!__builtin_add_overflow(begin, tensor.size_bytes, &end));
    text += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", quoted(tensor.name, file),
                        dtype_name(tensor.dtype), fmt::join(tensor.shape, ","), begin, end);
    begin = end;
  }
  text += '}';
  text.resize((text.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment, ' ');
  return text;
}

}  // namespace

struct SafetensorsWriter::Impl {
  AtomicFile out;
  std::vector<uint64_t> sizes_bytes;  // [n_tensors]
  size_t n_written = 0;
};

SafetensorsWriter::SafetensorsWriter(std::filesystem::path file, std::vector<TensorInfo> tensors,
                                     BlockFormats block_formats) {
  const std::string header = header_text(tensors, file);
  const uint64_t data_start = kLengthBytes + header.size();
  std::vector<uint64_t> sizes_bytes;
  uint64_t file_size_bytes = data_start;
  for (const TensorInfo& tensor : tensors) {
    sizes_bytes.push_back(tensor.size_bytes);
    file_size_bytes += tensor.size_bytes;
  }
  // The reader's rules are the writer's too: names, duplicates, sizes that fit dtype and shape.
  parse_safetensors_header(header, data_start, file_size_bytes, file, block_formats);

  impl_.reset(new Impl{.out = AtomicFile(std::move(file)), .sizes_bytes = std::move(sizes_bytes)});
  const uint64_t header_bytes = header.size();
  impl_->out.append(std::as_bytes(std::span(&header_bytes, 1)));
  impl_->out.append(header);
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  MORAINE_CHECK(impl_->n_written < impl_->sizes_bytes.size());
  MORAINE_CHECK(bytes.size() == impl_->sizes_bytes[impl_->n_written]);
  impl_->out.append(bytes);
  ++impl_->n_written;
}

void SafetensorsWriter::finish() {
  MORAINE_CHECK(impl_->n_written == impl_->sizes_bytes.size());
  impl_->out.finish();
}

}  // namespace moraine::quant
