#include "offload/open_reader.h"

#include <fmt/format.h>

#include <cstring>

#include "offload/pread_reader.h"

namespace moraine::offload {

std::unique_ptr<BlockReader> open_reader(ReaderKind kind, std::span<const std::filesystem::path> files,
                                         const std::function<void(const std::string&)>& inform, int uring_refusal) {
  if (kind == ReaderKind::kPread) return std::make_unique<PreadReader>(files);
  if (uring_refusal == 0) return std::make_unique<UringReader>(files);
  if (kind == ReaderKind::kUring) throw uring_refused_error(uring_refusal);
  if (inform) {
    inform(fmt::format("io_uring is refused by this system ({}): experts are read with pread, which is slower",
                       std::strerror(uring_refusal)));
  }
  return std::make_unique<PreadReader>(files);
}

}  // namespace moraine::offload
