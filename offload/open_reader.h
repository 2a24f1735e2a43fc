#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "offload/block_reader.h"
#include "offload/uring_reader.h"

namespace moraine::offload {

/// Opens `files`, and their copies in `mirrors`, with the reader of that kind. kAuto falls back to pread where io_uring
/// is refused and tells `inform` (may be empty) one line; kUring throws quant::Error(kIo) there, saying what to do.
/// `uring_refusal`: the errno that refuses io_uring, 0 if it is allowed. With mirrors the reader is a StripedReader
/// over all of them; what it throws: find_mirrors().
std::unique_ptr<BlockReader> open_reader(ReaderKind kind, std::span<const std::filesystem::path> files,
                                         const std::function<void(const std::string&)>& inform,
                                         std::span<const std::filesystem::path> mirrors = {},
                                         int uring_refusal = UringReader::refusal());

}  // namespace moraine::offload
