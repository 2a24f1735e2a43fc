#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "tools/bench_row.h"
#include "tools/machine_spec.h"

namespace moraine::tools {

/// What was measured on a machine and is kept in the user's cache (machine_record_file()): `moraine bench` notes limits
/// and shares, so that plans go by this machine instead of a table.
struct MachineRecord {
  BenchLimits limits = {};    ///< DRAM and matrix peaks; the disk is the model's, not the machine's: never kept
  ReachedShares shares = {};  ///< those of the table where nothing was measured
};

/// A record of the processor `cpu` with `cores` cores. Nothing if there is none, or one of another machine, or none
/// that can be read: it is a cache.
std::optional<MachineRecord> read_machine_record(const std::filesystem::path& file, const std::string& cpu, int cores);

/// Writes it whole or not at all; a place that can't be written is no error. Makes the folder.
void write_machine_record(const std::filesystem::path& file, const std::string& cpu, int cores,
                          const MachineRecord& record);

/// The record of this machine. If there is none that knows its limits, they are measured (about 2 s) and noted.
MachineRecord known_machine(const std::filesystem::path& file, const std::string& cpu, int cores,
                            const std::function<cpu::MachineLimits()>& measure);

/// `shares` with those that `report` has measured in their place; that of the drive never is, because its rows wait for
/// products, too. A model that reads less than 1 GiB per token lies in
/// the caches in part and says nothing about DRAM: then `shares` as they are.
ReachedShares with_measured(ReachedShares shares, const BenchReport& report);

}  // namespace moraine::tools
