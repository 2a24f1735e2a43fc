#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace moraine::tools {

/// Bytes of a size as a person writes it: "6GiB", "512 MiB", "1.5GB", "4096". KiB, MiB, GiB, TiB are powers of 1024;
/// kB, MB, GB, TB powers of 1000; the case of the letters does not matter. Fractions of a byte are cut off. Throws
/// quant::Error(kUsage) for anything else, for a negative number and for 2^63 bytes or more.
uint64_t parse_byte_size(std::string_view text);

/// The size for people, in the largest binary unit that leaves at least 1: "812 B", "1.5 KiB", "24.8 MiB".
std::string byte_size_text(uint64_t size_bytes);

}  // namespace moraine::tools
