#include "tools/machine_record.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string_view>
#include <system_error>

#include "quant/error.h"
#include "quant/file_io.h"
#include "quant/json.h"

namespace moraine::tools {
namespace {

constexpr uint64_t kMaxRecordBytes = 64u << 10;
constexpr double kLeastTokenBytes = 1u << 30;
constexpr int64_t kLongPromptTokens = 1024;

/// A positive number of `json`, or nothing.
std::optional<double> number_of(const quant::Json& json, const char* name) {
  const auto found = json.find(name);
  if (found == json.end() || !found->is_number()) return std::nullopt;
  const double value = found->get<double>();
  return std::isfinite(value) && value > 0.0 ? std::optional<double>(value) : std::nullopt;
}

void take_share(double& share, const quant::Json& json, const char* name) {
  if (const auto value = number_of(json, name)) share = std::min(*value, 1.0);
}

quant::Json or_null(const std::optional<double>& value) {
  return value ? quant::Json(*value) : quant::Json();
}

/// The member `name` of an object, or null.
quant::Json member_of(const quant::Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() ? *found : quant::Json();
}

std::optional<MachineRecord> record_of(const quant::Json& json, const std::string& cpu, int cores) {
  const auto section = [&](const char* name) {
    const quant::Json found = member_of(json, name);
    return found.is_object() ? found : quant::Json::object();
  };
  const quant::Json machine = section("machine"), limits = section("limits"), shares = section("shares");
  if (member_of(machine, "cpu") != quant::Json(cpu) || member_of(machine, "cores") != quant::Json(cores)) {
    return std::nullopt;
  }
  MachineRecord record;
  record.limits.compute = {.dram_read_gb_per_s = number_of(limits, "dram_read_gb_per_s"),
                           .int8_gflop_per_s = number_of(limits, "int8_gflop_per_s"),
                           .bf16_gflop_per_s = number_of(limits, "bf16_gflop_per_s")};
  take_share(record.shares.decode_dram, shares, "decode_dram");
  take_share(record.shares.prefill_dram, shares, "prefill_dram");
  take_share(record.shares.prefill_int8, shares, "prefill_int8");
  const quant::Json with = member_of(shares, "measured_with");
  if (with.is_string()) record.shares.measured_with = quant::printable(with.get<std::string>());
  return record;
}

/// How well `row` says what decoding or a long prompt reaches of a limit: the higher the better, nothing: not at all.
std::optional<int64_t> fitness(const BenchRow& row, BenchTest test, std::string_view limit, const Bound& bound) {
  if (row.test != test || limit != bound.limit) return std::nullopt;
  if (test == BenchTest::kDecode) return -row.context;
  return -std::abs(row.tokens - kLongPromptTokens);
}

}  // namespace

std::optional<MachineRecord> read_machine_record(const std::filesystem::path& file, const std::string& cpu, int cores) {
  std::error_code ignored;
  if (file.empty() || !std::filesystem::is_regular_file(file, ignored)) return std::nullopt;
  try {
    const quant::Json json = quant::parse_json(quant::read_text(file, kMaxRecordBytes), file);
    return json.is_object() ? record_of(json, cpu, cores) : std::nullopt;
  } catch (const quant::Error&) {
    return std::nullopt;
  }
}

void write_machine_record(const std::filesystem::path& file, const std::string& cpu, int cores,
                          const MachineRecord& record) {
  if (file.empty()) return;
  const cpu::MachineLimits& limits = record.limits.compute;
  const ReachedShares& shares = record.shares;
  const quant::Json json = {{"machine", {{"cpu", cpu}, {"cores", cores}}},
                            {"limits",
                             {{"dram_read_gb_per_s", or_null(limits.dram_read_gb_per_s)},
                              {"int8_gflop_per_s", or_null(limits.int8_gflop_per_s)},
                              {"bf16_gflop_per_s", or_null(limits.bf16_gflop_per_s)}}},
                            {"shares",
                             {{"decode_dram", shares.decode_dram},
                              {"prefill_dram", shares.prefill_dram},
                              {"prefill_int8", shares.prefill_int8},
                              {"measured_with", shares.measured_with}}}};
  try {
    std::error_code ignored;
    std::filesystem::create_directories(file.parent_path(), ignored);
    quant::write_file_atomically(file, json.dump(2) + "\n");
  } catch (const quant::Error&) {
    // The next plan goes by the table, as this one did.
  }
}

MachineRecord known_machine(const std::filesystem::path& file, const std::string& cpu, int cores,
                            const std::function<cpu::MachineLimits()>& measure) {
  MachineRecord record = read_machine_record(file, cpu, cores).value_or(MachineRecord{});
  if (record.limits.compute.dram_read_gb_per_s) return record;
  record.limits.compute = measure();
  write_machine_record(file, cpu, cores, record);
  return record;
}

ReachedShares with_measured(ReachedShares shares, const BenchReport& report) {
  if (report.token.weight_bytes < kLeastTokenBytes) return shares;
  struct Wanted {
    BenchTest test;
    const char* limit;
    double& share;
    std::optional<int64_t> best = {};
  };
  Wanted wanted[] = {{BenchTest::kDecode, "dram", shares.decode_dram},
                     {BenchTest::kPrefill, "dram", shares.prefill_dram},
                     {BenchTest::kPrefill, "int8", shares.prefill_int8}};
  for (const BenchRow& row : report.rows) {
    const std::optional<Bound> bound = bound_of(row, report.limits);
    if (!bound) continue;
    for (Wanted& place : wanted) {
      const std::optional<int64_t> fits = fitness(row, place.test, place.limit, *bound);
      if (!fits || (place.best && *place.best >= *fits)) continue;
      place.best = fits;
      place.share = std::min(1.0, row.tokens_per_s.median / bound->tokens_per_s);
      shares.measured_with = report.model;
    }
  }
  return shares;
}

}  // namespace moraine::tools
