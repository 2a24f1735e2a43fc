#include "tools/source_fingerprint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "quant/checksum.h"
#include "quant/file_io.h"

namespace moraine::tools {
namespace {

constexpr uint64_t kSampleBytes = 64u << 10;

}  // namespace

std::string source_fingerprint(const runtime::ModelSource& source, const quant::Checkpoint& checkpoint) {
  quant::ChecksumStream stream;
  const auto add = [&](std::string_view text) { stream.update(std::as_bytes(std::span(text))); };
  add(source.text("config.json").value_or(""));
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    add(fmt::format("{}\n{} {} {} {}\n", name, quant::dtype_name(tensor.dtype), fmt::join(tensor.shape, ","),
                    tensor.file, tensor.offset));
  }
  std::vector<std::byte> sample(kSampleBytes);
  for (const std::filesystem::path& file : checkpoint.files()) {
    const quant::UniqueFd descriptor = quant::open_for_read(file);
    const uint64_t size_bytes = quant::file_bytes(descriptor.get(), file);
    add(fmt::format("{} {}\n", file.filename().string(), size_bytes));
    const uint64_t count = std::min(size_bytes, kSampleBytes);
    for (const uint64_t offset : {uint64_t{0}, (size_bytes - count) / 2, size_bytes - count}) {
      const std::span<std::byte> part = std::span(sample).first(count);
      quant::pread_exact(descriptor.get(), part, offset, file);
      stream.update(part);
    }
  }
  return quant::checksum_text(stream.digest());
}

}  // namespace moraine::tools
