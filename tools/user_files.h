#pragma once

#include <cstdint>
#include <filesystem>

namespace moraine::tools {

// Where the program keeps files of its own, below $XDG_STATE_HOME and $XDG_CACHE_HOME or what stands for them in the
// home directory. Never in a model's directory, which may be somebody else's or read-only. Empty paths if there is no
// such place.

/// Lines typed in chats.
std::filesystem::path history_file();
/// The predictor trained for the model with this runtime::router_fingerprint().
std::filesystem::path predictor_file(uint64_t router_fingerprint);
/// Limits of this machine and how much of them is reached (tools/machine_record.h).
std::filesystem::path machine_record_file();
/// The experts of the model at `model` that were wanted most. Its folder is made; empty if that fails.
std::filesystem::path hot_set_file(const std::filesystem::path& model);

}  // namespace moraine::tools
