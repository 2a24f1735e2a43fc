#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "offload/expert_id.h"
#include "offload/expert_record_source.h"

namespace moraine::offload {

/// Tells the experts of one model from those of another: XXH3-64 over every expert's place (file name, size and time of
/// change, offset, size). Throws quant::Error(kIo).
uint64_t hot_set_key(const ExpertRecordSource& source);

/// The experts that were wanted most when the program last ended, hottest first, kept in a small file:
/// "MRNHOT1\n", key u64, count u64, count × (layer i32, expert i32), XXH3-64 of all before it; little-endian.
///
/// Writes into a new file beside it, which then takes its name, so that no reader ever sees half of one; makes the
/// directory. Throws quant::Error(kIo / kNotEnough).
void save_hot_set(const std::filesystem::path& file, uint64_t key, std::span<const ExpertId> hottest);

/// Reads it back; nothing if there is none. A file that is damaged or of another model is ignored, and `inform` (may be
/// empty) told so in a line. It only decides what is read first, so nothing in it can do harm.
std::vector<ExpertId> load_hot_set(const std::filesystem::path& file, uint64_t key,
                                   const std::function<void(const std::string&)>& inform);

}  // namespace moraine::offload
