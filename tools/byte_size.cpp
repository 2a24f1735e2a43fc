#include "tools/byte_size.h"

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>

#include "quant/error.h"

namespace moraine::tools {
namespace {

struct Unit {
  std::string_view name;  // lower case
  double bytes;
};
constexpr std::array<Unit, 10> kUnits = {{{"", 1.0},
                                          {"b", 1.0},
                                          {"kib", 0x1p10},
                                          {"mib", 0x1p20},
                                          {"gib", 0x1p30},
                                          {"tib", 0x1p40},
                                          {"kb", 1e3},
                                          {"mb", 1e6},
                                          {"gb", 1e9},
                                          {"tb", 1e12}}};

[[noreturn]] void refuse(std::string_view text) {
  throw quant::Error(quant::ErrorKind::kUsage, {.what = "not a size in bytes",
                                                .item = quant::printable(text),
                                                .expected = "a number and a unit",
                                                .action = "write for example 6GiB, 512MiB, 1.5GB or 4096"});
}

}  // namespace

uint64_t parse_byte_size(std::string_view text) {
  double number = 0.0;
  const char* const end = text.data() + text.size();
  const auto [rest, fault] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  if (fault != std::errc()) refuse(text);

  std::string unit;
  for (const char* at = rest; at != end; ++at) {
    if (*at == ' ' && unit.empty()) continue;
    unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*at)));
  }
  for (const Unit& known : kUnits) {
    if (unit != known.name) continue;
    const double bytes = number * known.bytes;
    if (!(bytes >= 0.0 && bytes < 0x1p63) || std::signbit(number)) refuse(text);
    return static_cast<uint64_t>(bytes);
  }
  refuse(text);
}

std::string byte_size_text(uint64_t size_bytes) {
  constexpr std::array<const char*, 5> kNames = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (size_bytes < 1024) return fmt::format("{} B", size_bytes);
  double value = static_cast<double>(size_bytes) / 1024.0;
  size_t unit = 0;
  // 1023.95 would be printed as "1024.0": it belongs to the next unit.
  while (value >= 1023.95 && unit + 1 < kNames.size()) {
    value /= 1024.0;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kNames[unit]);
}

}  // namespace moraine::tools
